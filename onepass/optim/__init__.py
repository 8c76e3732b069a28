"""The torch front: optimizer classes, and the ways to get one."""

from onepass.optim.classes import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    RAdam,
    Ranger,
    RMSprop,
    Yogi,
)
from onepass.optim.optimizer import Optimizer
from onepass.optim.registry import (
    Description,
    UnknownName,
    create,
    describe,
    equations,
    get_class,
    kernel_source,
    list_optimizers,
    optimizer,
)
from onepass.optim.release import GradientRelease, release_gradients

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Description",
    "GradientRelease",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Ranger",
    "UnknownName",
    "Yogi",
    "create",
    "describe",
    "equations",
    "get_class",
    "kernel_source",
    "list_optimizers",
    "optimizer",
    "release_gradients",
]
