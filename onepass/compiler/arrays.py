"""Turn expressions over arrays into a Python function, so that an eager step costs little more than its operations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from onepass.compiler.host import NUMBERS, PYTHON, literal
from onepass.compiler.interpret import select
from onepass.lang.expr import Expr
from onepass.lang.ops import OPS

# What is written out; for every other operation its function in the op table is called.
_SAME_ON_NUMBERS = ("add", "sub", "mul", "div", "neg", "lt", "le", "gt", "ge", "eq", "ne")
WRITTEN: dict[str, str] = {
    **{name: PYTHON[name] for name in _SAME_ON_NUMBERS},
    "sqrt": "xp.sqrt({})",
    "where": "select(xp, v['p'], {}, {}, {})",
}
# Python reads 200 nested parentheses.
_DEEPEST = 50

OnArrays = Callable[[Any, Mapping[str, Any], Mapping[Expr, Any]], tuple[Any, ...]]


def compile_arrays(expressions: Sequence[Expr], known: Iterable[Expr] = ()) -> OnArrays:
    """A function from the symbols' values to those of expressions above the level of a step, as `on_arrays` gives them.

    A value that is used once stands inside what uses it, so that NumPy may write the result over it; one that is used
    again is let go after its last use.

    Args:
        expressions: what to evaluate.
        known: nodes whose values are given.

    Returns:
        A function of the array namespace, the symbols' values and those of ``known``.
    """
    writer = _Writer(expressions, known)
    results = [f"{writer.text(expression)[0]}, " for expression in expressions]
    lines = [*writer.lines, f"return ({''.join(results)})"]
    scope: dict[str, Any] = {
        "select": select,
        **NUMBERS,
        **{f"{name}_": row.arrays for name, row in OPS.items()},
        **writer.nodes,
    }
    exec("\n    ".join(["def compute(xp, v, known):", *_letting_go(lines)]), scope)
    return scope["compute"]


class _Writer:
    """Writes nodes, arguments before what uses them."""

    def __init__(self, expressions: Sequence[Expr], known: Iterable[Expr]):
        self.nodes = {f"node_{i}": node for i, node in enumerate(known)}
        self.given = {node: name for name, node in self.nodes.items()}
        self.uses: Counter[Expr] = Counter()
        for expression in expressions:
            self.count(expression)
        self.names: dict[Expr, str] = {}
        self.lines: list[str] = []

    def count(self, node: Expr) -> None:
        self.uses[node] += 1
        if self.uses[node] == 1 and node not in self.given:
            for arg in node.args:
                self.count(arg)

    def text(self, node: Expr) -> tuple[str, int]:
        """What a node is called, or what it is made of, and how deep its parentheses go."""
        if node.op == "constant":
            return literal(node.data), 1
        if node not in self.names:
            text, depth = self.made(node)
            if self.uses[node] == 1 and depth < _DEEPEST:
                return text, depth
            self.names[node] = f"x{len(self.names)}"
            self.lines.append(f"{self.names[node]} = {text}")
        return self.names[node], 0

    def made(self, node: Expr) -> tuple[str, int]:
        if node in self.given:
            return f"known[{self.given[node]}]", 1
        if node.op == "symbol":
            return f"v[{node.data!r}]", 1
        parts = [self.text(arg) for arg in node.args]
        texts = [text for text, _ in parts]
        if node.op in WRITTEN:
            text = WRITTEN[node.op].format(*texts)
        else:
            over = [repr(node.data)] if OPS[node.op].kind == "reduction" else []
            text = f"{node.op}_(xp, {', '.join([*texts, *over])})"
        return text, 1 + max(depth for _, depth in parts)


def _letting_go(lines: Sequence[str]) -> list[str]:
    """The lines, each followed by the end of the variables that no later one uses."""
    written: list[str] = []
    later: set[str] = set()
    for line in reversed(lines):
        here = set(re.findall(r"\bx\d+\b", line))
        done = sorted(here - later) if not line.startswith("return") else []
        written += [f"del {', '.join(done)}"] * bool(done) + [line]
        later |= here
    return written[::-1]
