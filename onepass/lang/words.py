"""The words that rules are written in.

Each works on symbols, on plain numbers and on arrays alike, so that a rule is one function for all of them.
"""

from __future__ import annotations

import sys
from typing import Any

from onepass.lang.expr import Expr, apply
from onepass.lang.ops import OPS


def namespace(x: Any) -> Any:
    """The NumPy-like module that the array ``x`` belongs to, found without importing any."""
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()
    module = sys.modules.get(type(x).__module__.partition(".")[0])
    if not hasattr(module, "where"):
        raise TypeError(f"no array library is known for {type(x).__name__}: {x!r}")
    return module


def _word(op: str, *args: Any, over: str | None = None) -> Any:
    if any(isinstance(arg, Expr) for arg in args):
        node = apply(op, *args, over=over)
        if node is NotImplemented:
            raise TypeError(f"{op} cannot mix symbols with {', '.join(type(arg).__name__ for arg in args)}")
        return node
    extra = () if over is None else (over,)
    arrays = [arg for arg in args if not isinstance(arg, (bool, int, float))]
    if not arrays:
        return OPS[op].floats(*args, *extra)
    return OPS[op].arrays(namespace(arrays[0]), *args, *extra)


def sqrt(x: Any) -> Any:
    """The square root; NaN below zero."""
    return _word("sqrt", x)


def exp(x: Any) -> Any:
    """The exponential function."""
    return _word("exp", x)


def log(x: Any) -> Any:
    """The natural logarithm; minus infinity at zero, NaN below."""
    return _word("log", x)


def sign(x: Any) -> Any:
    """-1, 0 or 1, as ``x`` is negative, zero or positive; NaN if it is NaN."""
    return _word("sign", x)


def absolute(x: Any) -> Any:
    """The absolute value."""
    return _word("absolute", x)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two values, element by element; NaN if either is."""
    return _word("maximum", a, b)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two values, element by element; NaN if either is."""
    return _word("minimum", a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, ``b`` elsewhere.

    A condition on step values (hyperparameters, ``t``) is decided once a step, and only the chosen side is computed.
    """
    return _word("where", condition, a, b)


def ema(s: Any, x: Any, beta: Any) -> Any:
    """The exponential moving average: ``beta * s + (1 - beta) * x``."""
    return beta * s + (1 - beta) * x


def sum_(x: Any, over: str = "tensor") -> Any:
    """The sum over each ``"row"`` (all dimensions but the first), the ``"tensor"`` or the whole ``"model"``."""
    return _word("sum", x, over=over)


def mean(x: Any, over: str = "tensor") -> Any:
    """The mean over each ``"row"`` (all dimensions but the first), the ``"tensor"`` or the whole ``"model"``."""
    return _word("mean", x, over=over)


def norm(x: Any, over: str = "tensor") -> Any:
    """The Euclidean norm over each ``"row"``, the ``"tensor"`` or the whole ``"model"``."""
    return sqrt(sum_(x * x, over))
