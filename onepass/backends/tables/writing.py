"""What the writers of kernels share: where things stand in the tables, when a value is known, what it is called.

A kernel goes over chunks of tensors. It finds a chunk's addresses and step values in a table and takes its elements:
each value is loaded once, everything is computed in registers, each result is stored once. A reduction over a tensor or
the model splits the work: a kernel that only reads runs first and leaves one partial sum for every chunk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from onepass.compiler import Variant, walk
from onepass.lang import OPS, Expr, Level

# The types that kernels store.
STORAGE = ("float32", "float64", "bfloat16", "float16")

# The columns that a tensor's row of the table begins with; the addresses follow, in the order of `Layout.arrays`.
ROW_OF_VALUES, ROW_LENGTH = 0, 1
FIRST_ADDRESS = 2


@dataclass(frozen=True)
class Layout:
    """What a kernel's arguments look like.

    Attributes:
        arrays: for ``p``, ``g`` and each state that the variant reads or writes, its storage type.
        real: the type of the arithmetic, float32 or float64.
    """

    arrays: tuple[tuple[str, str], ...]
    real: str

    @property
    def columns(self) -> int:
        return FIRST_ADDRESS + len(self.arrays)


def layout(storage: Mapping[str, str]) -> Layout:
    """The layout of the kernels for arrays of these storage types, ``{"p": "float32", "g": ..., "state.KEY": ...}``."""
    return Layout(tuple(storage.items()), "float64" if storage["p"] == "float64" else "float32")


def phases(variant: Variant, at_least: Sequence[int] = ()) -> tuple[tuple[Expr, ...], ...]:
    """The reductions that need a kernel of their own, grouped: those of a group do not depend on one another.

    Args:
        variant: what is computed.
        at_least: for the first, second, ... of the reductions over the model the group that it must not come before.

    Returns:
        The groups in order. Reductions over the model are in the order in which all variants have them.
    """
    depth: dict[Expr, int] = {}
    over_model: list[int] = []
    for node in variant.reductions:
        if node.level < Level.ROW:
            below = [depth[inner] for inner in walk(node.args) if inner in depth]
            depth[node] = 1 + max(below, default=-1)
        if node.level == Level.MODEL:
            depth[node] = max(depth[node], *over_model[-1:], *at_least[len(over_model) :][:1], 0)
            over_model.append(depth[node])
    rounds = 1 + max(depth.values(), default=-1)
    return tuple(tuple(node for node in depth if depth[node] == i) for i in range(rounds))


def over_model(rounds: Sequence[Sequence[Expr]]) -> list[int]:
    """For each of the reductions over the model, the phase it belongs to."""
    return [i for i, nodes in enumerate(rounds) for node in nodes if node.level == Level.MODEL]


_SECTIONS = {Level.STEP: 2, Level.MODEL: 2, Level.TENSOR: 2, Level.ROW: 3, Level.ELEMENT: 4}


class Phase:
    """One phase of a variant: what it must compute, and the names of the values on the way.

    Args:
        variant: what is computed.
        arrays: how the tensors are stored.
        index: which of the phases; the one after the last reductions writes the results.
        rounds: the variant's `phases`.
    """

    # For each op, its text with a place for each argument; and the kernel's own names, which no state may take.
    operations: ClassVar[Mapping[str, str]]
    taken: ClassVar[frozenset[str]]

    def __init__(self, variant: Variant, arrays: Layout, index: int, rounds: tuple[tuple[Expr, ...], ...]):
        self.variant, self.arrays = variant, arrays
        self.phase = rounds[index] if index < len(rounds) else ()
        self.known = frozenset(node for nodes in rounds[:index] for node in nodes)
        self.columns = {node: i for i, node in enumerate(node for nodes in rounds for node in nodes)}
        self.numbers: dict[Expr, int] = {}
        self.slots = {name: i for i, (name, _) in enumerate(arrays.arrays)}
        self.stores: list[tuple[str, Expr]] = []
        if index == len(rounds):
            self.stores = [("p", variant.parameter), *((f"state.{key}", new) for key, new in variant.states.items())]
        roots = [expression for _, expression in self.stores]
        roots += [node.args[0] for node in self.phase]
        self.nodes = list(walk(roots, stop=self.known))
        self.rows = [node for node in self.nodes if node.level == Level.ROW and node in self.reduced]
        self.loaded = self.names_in(self.nodes)
        self.touched = list(dict.fromkeys([*self.loaded, *(name for name, _ in self.stores)]))
        values = {node.data for node in self.nodes if node.op == "symbol" and node.data.startswith("row[")}
        self.used = [i for i in range(len(variant.row)) if f"row[{i}]" in values]

    @property
    def reduced(self) -> frozenset[Expr]:
        return frozenset(self.variant.reductions)

    def names_in(self, nodes: Iterable[Expr]) -> list[str]:
        """The arrays that these nodes are made of, in the order of the table's columns."""
        present = {node.data for node in nodes if node.op == "symbol"}
        return [name for name in self.slots if name in present]

    def computed(self, nodes: Iterable[Expr], level: Level, indent: int) -> list[str]:
        """Assignments for the nodes of a section: those of ``level``, or of any level up to TENSOR for the first."""
        section = _SECTIONS[level]
        rows = frozenset(self.rows)
        lines: list[str] = []
        for node in nodes:
            if _SECTIONS[node.level] != section or node in self.known or node in rows:
                continue
            if node.op == "constant" and not isinstance(node.data, bool):
                lines.append(f"{' ' * indent}{self.text(node)} = {self.number(node.data)}")
            elif node.args:
                text = self.operations[node.op].format(*(self.text(arg) for arg in node.args))
                lines.append(f"{' ' * indent}{self.text(node)} = {text}")
        return lines

    def number(self, value: float) -> str:
        """A constant in the type of the arithmetic."""
        raise NotImplementedError

    def text(self, node: Expr) -> str:
        """The variable that holds a node's value."""
        if node.op == "symbol":
            return self.variable(node.data)
        if node.op == "constant" and isinstance(node.data, bool):
            return repr(node.data)
        number = self.numbers.setdefault(node, len(self.numbers))
        kind = "c" if node.op == "constant" else "r" if OPS[node.op].kind == "reduction" else "x"
        return f"{kind}{number}"

    def variable(self, name: str) -> str:
        """A symbol's name as a Python identifier: ``state.exp_avg`` becomes ``exp_avg``, ``row[3]`` ``row_3``."""
        if name.startswith("row["):
            return f"row_{name[4:-1]}"
        if not name.startswith("state."):
            return name
        plain = re.sub(r"\W", "_", name[6:])
        return (
            f"{plain}_" if plain in self.taken or re.match(r"\d|[xcr]\d|row_|partial_|load_|store_", plain) else plain
        )


def literal(value: float) -> str:
    """A number as Python writes it, infinity and NaN included."""
    return repr(value) if abs(value) < float("inf") else f"float('{value}')"
