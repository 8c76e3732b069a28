"""What the kernels of a launch are: the variants that they choose from, and the sums between their phases."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from onepass.backends.tables.writing import phases
from onepass.backends.triton.emit import Part, Tiled, emit
from onepass.compiler import Variant
from onepass.lang import Expr, Level


class Sum(NamedTuple):
    """One of the sums that a phase ends in.

    Attributes:
        column: where it stands in a tensor's row of reductions.
        is_mean: whether it is divided by the number of elements.
        over_model: whether it runs over all tensors.
    """

    column: int
    is_mean: bool
    over_model: bool


@dataclass(frozen=True)
class Plan:
    """What the kernels of a launch are.

    Attributes:
        parts: the variants that they choose from.
        sums: for each phase, what is added up after it.
        width: how many step values a row has.
    """

    parts: tuple[Part, ...]
    sums: tuple[tuple[Sum, ...], ...]
    width: int

    @property
    def columns(self) -> int:
        return sum(map(len, self.sums))

    def source(self, arrays: Tiled) -> str:
        """The source of the kernels for arrays of these types."""
        return emit(self.parts, arrays, self.width, list(map(len, self.sums)), max(1, self.columns))

    @property
    def has_rows(self) -> bool:
        return any(node.level == Level.ROW for part in self.parts for node in part.variant.reductions)


@cache
def plan_of(variant: Variant) -> Plan:
    """The kernels of a variant that the host has chosen."""
    rounds = phases(variant)
    columns = {node: i for i, node in enumerate(node for nodes in rounds for node in nodes)}
    slots = {node: i for nodes in rounds for i, node in enumerate(nodes)}
    part = Part(variant, None, rounds, slots, columns, tuple(range(len(variant.row))))
    sums = tuple(tuple(sum_of(node, columns[node]) for node in nodes) for nodes in rounds)
    return Plan((part,), sums, max(1, len(variant.row)))


def sum_of(node: Expr, column: int) -> Sum:
    """What is to be done with the partial sums of a reduction."""
    return Sum(column, node.op == "mean", node.level == Level.MODEL)
