"""The update rules: one algorithm a file, a few lines of mathematics each."""

from onepass.rules.adadelta import adadelta
from onepass.rules.adagrad import adagrad
from onepass.rules.adam import adam, amsgrad
from onepass.rules.adamax import adamax
from onepass.rules.nadam import nadam
from onepass.rules.radam import radam
from onepass.rules.rmsprop import centered_rmsprop, rmsprop
from onepass.rules.sgd import momentum, nesterov, sgd
from onepass.rules.yogi import yogi

RULES = {
    rule.name: rule
    for rule in (
        sgd,
        momentum,
        nesterov,
        adagrad,
        adadelta,
        rmsprop,
        centered_rmsprop,
        adam,
        amsgrad,
        adamax,
        nadam,
        radam,
        yogi,
    )
}

__all__ = [
    "RULES",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "amsgrad",
    "centered_rmsprop",
    "momentum",
    "nadam",
    "nesterov",
    "radam",
    "rmsprop",
    "sgd",
    "yogi",
]
