"""onepass: every gradient-descent optimizer, written once.

>>> import torch, onepass
>>> model = torch.nn.Linear(3, 1)
>>> opt = onepass.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
"""

from onepass.lang import (
    absolute,
    ema,
    exp,
    log,
    maximum,
    mean,
    minimum,
    norm,
    rule,
    scalar,
    sign,
    sqrt,
    sum_,
    transform,
    where,
)
from onepass.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    Ranger,
    RMSprop,
    UnknownName,
    Yogi,
    create,
    describe,
    equations,
    list_optimizers,
    optimizer,
)
from onepass.transforms import cautious, cautious_mask, centralize, clip_value, decay, lookahead

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Ranger",
    "UnknownName",
    "Yogi",
    "absolute",
    "cautious",
    "cautious_mask",
    "centralize",
    "clip_value",
    "create",
    "decay",
    "describe",
    "ema",
    "equations",
    "exp",
    "list_optimizers",
    "log",
    "lookahead",
    "maximum",
    "mean",
    "minimum",
    "norm",
    "optimizer",
    "rule",
    "scalar",
    "sign",
    "sqrt",
    "sum_",
    "transform",
    "where",
]
