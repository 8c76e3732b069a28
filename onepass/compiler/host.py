"""Turn step-level expressions into a Python function, so that a step's scalars cost microseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onepass.compiler.interpret import on_host
from onepass.lang.expr import Expr
from onepass.lang.ops import OPS

PYTHON: dict[str, str] = {
    "add": "({} + {})",
    "sub": "({} - {})",
    "mul": "({} * {})",
    "div": "({} / {})",
    "pow": "({} ** {})",
    "mod": "({} % {})",
    "neg": "(-{})",
    "absolute": "abs({})",
    "sqrt": "sqrt({})",
    "exp": "exp({})",
    "log": "log({})",
    "sign": "sign({})",
    "maximum": "maximum({}, {})",
    "minimum": "minimum({}, {})",
    "lt": "({} < {})",
    "le": "({} <= {})",
    "gt": "({} > {})",
    "ge": "({} >= {})",
    "eq": "({} == {})",
    "ne": "({} != {})",
    "and": "({} and {})",
    "or": "({} or {})",
    "where": "({1} if {0} else {2})",
    "sum": "{}",
    "mean": "{}",
}

# The names in `literal`.
NUMBERS: dict[str, Any] = {"infinity": math.inf, "nan": math.nan}
_WORDS: dict[str, Any] = {
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    **NUMBERS,
    **{name: OPS[name].floats for name in ("sign", "maximum", "minimum")},
}


def compile_host(expressions: Sequence[Expr]) -> Callable[[Mapping[str, Any]], tuple[float, ...]]:
    """A function from the values of the symbols to the values of step-level expressions, as `on_host` gives them.

    Where Python's arithmetic raises and IEEE's does not (a division by zero, an overflow), `on_host` takes over.
    """
    fast = _function(expressions)

    def compute(values: Mapping[str, Any]) -> tuple[float, ...]:
        try:
            return tuple(map(float, fast(values)))
        except (ArithmeticError, ValueError, TypeError):
            memo: dict[Expr, Any] = {}
            return tuple(float(on_host(expression, values, memo)) for expression in expressions)

    return compute


def _function(expressions: Sequence[Expr]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    names: dict[Expr, str] = {}
    lines: list[str] = []

    def assign(node: Expr) -> None:
        """Give a node that is needed in any case a variable; the sides of a ``where`` are not, its condition is."""
        if node in names or node.op == "constant":
            return
        for arg in node.args[:1] if node.op == "where" else node.args:
            assign(arg)
        text = f"v[{node.data!r}]" if node.op == "symbol" else write(node)
        names[node] = f"x{len(names)}"
        lines.append(f"    {names[node]} = {text}")

    def write(node: Expr) -> str:
        if node in names:
            return names[node]
        if node.op == "constant":
            return literal(node.data)
        if node.op == "symbol":
            return f"v[{node.data!r}]"
        return PYTHON[node.op].format(*map(write, node.args))

    for expression in expressions:
        assign(expression)
    results = "".join(f"{write(expression)}, " for expression in expressions)
    scope = dict(_WORDS)
    exec("\n".join(["def compute(v):", *lines, f"    return ({results})"]), scope)
    return scope["compute"]


def literal(value: float) -> str:
    """A constant as Python writes it."""
    if math.isfinite(value):
        return f"({value!r})"
    return "nan" if value != value else "infinity" if value > 0 else "(-infinity)"
