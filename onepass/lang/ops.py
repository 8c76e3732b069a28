"""The op table: one row for every operation that an update rule can be made of.

A row gives the operation's name, its arity and its meaning, once on Python floats (IEEE 754 arithmetic: what the host
computes in float64) and once on arrays (any library with operators and a NumPy-like namespace ``xp``). Every emitter,
whether it writes equations or kernels, is a table over the same names.
"""

# The table deals in values of any type, on purpose.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["arithmetic", "comparison", "logic", "selection", "reduction"]


@dataclass(frozen=True)
class Op:
    """One row: ``floats(*args)`` and ``arrays(xp, *args)`` say what the operation means."""

    name: str
    arity: int
    kind: Kind
    floats: Callable[..., Any]
    arrays: Callable[..., Any]


def _divide(a: float, b: float) -> float:
    """IEEE division: Python alone raises where every array library returns an infinity or NaN."""
    try:
        return a / b
    except ZeroDivisionError:
        return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _power(a: float, b: float) -> float:
    if a < 0 and math.isfinite(a) and math.isfinite(b) and b != math.floor(b):
        return math.nan
    try:
        result = a**b
    except OverflowError:
        return math.inf if a > 0 or b % 2 == 0 else -math.inf
    except ZeroDivisionError:
        return math.copysign(math.inf, a) if b % 2 == 1 else math.inf
    return result


def _remainder(a: float, b: float) -> float:
    return a % b if b != 0 and math.isfinite(a) else math.nan


def _guarded(function: Callable[[float], float], overflow: float = math.inf) -> Callable[[float], float]:
    """``function`` with NaN in place of Python's domain error and ``overflow`` in place of its overflow error."""

    def guarded(x: float) -> float:
        try:
            return function(x)
        except ValueError:
            return math.nan
        except OverflowError:
            return overflow

    return guarded


def _logarithm(x: float) -> float:
    return -math.inf if x == 0 else math.log(x)


def _sign(x: float) -> float:
    return 1.0 if x > 0 else -1.0 if x < 0 else x * 0.0


def _larger(a: float, b: float) -> float:
    return math.nan if a != a or b != b else max(a, b)


def _smaller(a: float, b: float) -> float:
    return math.nan if a != a or b != b else min(a, b)


def _select(condition: bool, a: float, b: float) -> float:
    return a if condition else b


def _is_number(x: object) -> bool:
    return isinstance(x, (int, float))


def _array_sign(xp: Any, x: Any) -> Any:
    # torch.sign makes 0 of a NaN, which would hide it.
    return xp.where(x == x, xp.sign(x), x)


def _array_where(xp: Any, condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, bool):
        return a if condition else b
    return xp.where(condition, a, b)


def _array_maximum(xp: Any, a: Any, b: Any) -> Any:
    if _is_number(a):
        a, b = b, a
    return xp.clip(a, b, None) if _is_number(b) else xp.maximum(a, b)


def _array_minimum(xp: Any, a: Any, b: Any) -> Any:
    if _is_number(a):
        a, b = b, a
    return xp.clip(a, None, b) if _is_number(b) else xp.minimum(a, b)


def _array_reduction(name: str) -> Callable[..., Any]:
    def reduce(xp: Any, x: Any, over: str) -> Any:
        if over == "row":
            axes = tuple(range(1, x.ndim))
            return getattr(xp, name)(x, axis=axes, keepdims=True) if axes else x
        return getattr(xp, name)(x)

    return reduce


def _operator(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda xp, *args: function(*args)


def _unless_mended(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The operator, or the namespace's function of this name where its arrays' own operator falls short."""
    return lambda xp, *args: getattr(xp, name, function)(*args)


def _named(name: str) -> Callable[..., Any]:
    return lambda xp, *args: getattr(xp, name)(*args)


def _alone(x: float, over: str) -> float:
    """A reduction of a single number, whichever way it is taken."""
    return x


_ROWS = [
    Op("add", 2, "arithmetic", operator.add, _operator(operator.add)),
    Op("sub", 2, "arithmetic", operator.sub, _operator(operator.sub)),
    Op("mul", 2, "arithmetic", operator.mul, _operator(operator.mul)),
    Op("div", 2, "arithmetic", _divide, _operator(operator.truediv)),
    Op("pow", 2, "arithmetic", _power, _unless_mended("mended_pow", operator.pow)),
    Op("mod", 2, "arithmetic", _remainder, _operator(operator.mod)),
    Op("neg", 1, "arithmetic", operator.neg, _operator(operator.neg)),
    Op("absolute", 1, "arithmetic", abs, _operator(abs)),
    Op("sqrt", 1, "arithmetic", _guarded(math.sqrt), _named("sqrt")),
    Op("exp", 1, "arithmetic", _guarded(math.exp), _named("exp")),
    Op("log", 1, "arithmetic", _guarded(_logarithm), _named("log")),
    Op("sign", 1, "arithmetic", _sign, _array_sign),
    Op("maximum", 2, "arithmetic", _larger, _array_maximum),
    Op("minimum", 2, "arithmetic", _smaller, _array_minimum),
    Op("lt", 2, "comparison", operator.lt, _operator(operator.lt)),
    Op("le", 2, "comparison", operator.le, _operator(operator.le)),
    Op("gt", 2, "comparison", operator.gt, _operator(operator.gt)),
    Op("ge", 2, "comparison", operator.ge, _operator(operator.ge)),
    Op("eq", 2, "comparison", operator.eq, _operator(operator.eq)),
    Op("ne", 2, "comparison", operator.ne, _operator(operator.ne)),
    Op("and", 2, "logic", lambda a, b: a and b, _unless_mended("mended_and", operator.and_)),
    Op("or", 2, "logic", lambda a, b: a or b, _unless_mended("mended_or", operator.or_)),
    Op("where", 3, "selection", _select, _array_where),
    Op("sum", 1, "reduction", _alone, _array_reduction("sum")),
    Op("mean", 1, "reduction", _alone, _array_reduction("mean")),
]

OPS: dict[str, Op] = {row.name: row for row in _ROWS}
