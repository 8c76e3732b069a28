"""onepass: every gradient-descent optimizer, written once.

>>> import torch, onepass
>>> model = torch.nn.Linear(3, 1)
>>> opt = onepass.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from onepass import schedules
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
from onepass.transforms import (
    average,
    cautious,
    cautious_mask,
    centralize,
    clip_adaptive,
    clip_norm,
    clip_value,
    decay,
    lookahead,
)

if TYPE_CHECKING:
    from onepass.optim import (
        SGD,
        Adadelta,
        Adagrad,
        Adam,
        Adamax,
        AdamW,
        GradientRelease,
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
        kernel_source,
        list_optimizers,
        optimizer,
        release_gradients,
    )
    from onepass.optim.param_groups import param_groups

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "GradientRelease",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Ranger",
    "UnknownName",
    "Yogi",
    "absolute",
    "average",
    "cautious",
    "cautious_mask",
    "centralize",
    "clip_adaptive",
    "clip_norm",
    "clip_value",
    "create",
    "decay",
    "describe",
    "ema",
    "equations",
    "exp",
    "kernel_source",
    "list_optimizers",
    "log",
    "lookahead",
    "maximum",
    "mean",
    "minimum",
    "norm",
    "optimizer",
    "param_groups",
    "release_gradients",
    "rule",
    "scalar",
    "schedules",
    "sign",
    "sqrt",
    "sum_",
    "transform",
    "where",
]


def __getattr__(name: str) -> Any:
    """What needs torch is loaded when it is asked for: the forms for other frameworks do without."""
    if name in ("functional", "jax", "keras", "optim", "paddle", "rules", "testing"):
        return importlib.import_module(f"onepass.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'onepass' has no attribute {name!r}")
    home = "onepass.optim.param_groups" if name == "param_groups" else "onepass.optim"
    globals()[name] = value = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
