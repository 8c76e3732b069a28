"""Evaluate expressions: step values in float64 on the host, the rest with any array library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onepass.lang.expr import Expr
from onepass.lang.ops import OPS

# By their very type: NumPy's float64, what is left of an array without dimensions, is a float to `isinstance`.
_NUMBERS = (bool, int, float)


def on_host(root: Expr, values: Mapping[str, Any], memo: dict[Expr, Any]) -> Any:
    """The value of a step-level expression, computed with Python's floats, which are float64.

    Only what is needed is computed: the side of a ``where`` that is not chosen is never looked at.
    """
    if root in memo:
        return memo[root]
    if root.op == "constant":
        return root.data
    if root.op == "symbol":
        return values[root.data]
    if root.op == "where":
        condition, a, b = root.args
        value = on_host(a if on_host(condition, values, memo) else b, values, memo)
    else:
        value = OPS[root.op].floats(*(on_host(arg, values, memo) for arg in root.args))
    memo[root] = value
    return value


def on_arrays(root: Expr, values: Mapping[str, Any], memo: dict[Expr, Any], xp: Any) -> Any:
    """The value of an expression over arrays of the NumPy-like namespace ``xp``.

    Args:
        root: what to evaluate.
        values: for every symbol's name its value: an array, or a Python float. ``values["p"]`` is an array, and gives
            its type to what is made from numbers alone.
        memo: values that are known already; all that is computed on the way is added to it. A reduction over the model
            must be in it, for one parameter's arrays cannot give it.
        xp: ``torch``, ``numpy``, ``jax.numpy``, ...
    """
    if root in memo:
        return memo[root]
    if root.op == "constant":
        return root.data
    if root.op == "symbol":
        return values[root.data]
    args = [on_arrays(arg, values, memo, xp) for arg in root.args]
    row = OPS[root.op]
    if row.kind == "reduction":
        value = row.arrays(xp, *args, root.data)
    elif all(type(arg) in _NUMBERS for arg in args):
        value = row.floats(*args)
    elif row.kind == "selection":
        value = select(xp, values["p"], *args)
    else:
        value = row.arrays(xp, *args)
    memo[root] = value
    return value


def select(xp: Any, like: Any, condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``; of the type of ``like`` if both are numbers."""
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        # The library would take its default type.
        a, b = (xp.asarray(x, dtype=like.dtype) for x in (a, b))
    return OPS["where"].arrays(xp, condition, a, b)
