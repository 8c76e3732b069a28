"""What is run: kernels, their jobs, and the gradients that have to be brought into shape on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from onepass.backends import mesh
from onepass.backends.cpu import machine
from onepass.backends.cpu.emit import FIRST_ADDRESS, Layout, emit, phases
from onepass.compiler import Variant, on_host
from onepass.lang import Expr, Level

Integers = npt.NDArray[np.int64]

# Elements of gradients in another layout than their parameters that are copied at a time.
BORROWED = 2**19


@cache
def kernels(variant: Variant, arrays: Layout) -> tuple[int, ...]:
    """The addresses of a variant's kernels, one a phase and the last one, compiled if need be."""
    return tuple(machine.load(source, arrays.real) for source in emit(variant, arrays))


@dataclass(frozen=True)
class Spans:
    """How large tensors are as a whole, and over which process groups each is spread.

    Attributes:
        counts: for each tensor its number of elements on all processes together.
        groups: for each tensor the groups whose processes hold parts of it.
        members: the numbers of the tensors that take part; None for all.
    """

    counts: Integers
    groups: Sequence[tuple[Any, ...]]
    members: tuple[int, ...] | None = None

    def of(self, members: Sequence[int]) -> Spans:
        """The same, with these tensors taking part."""
        return Spans(self.counts, self.groups, tuple(members))

    def elements(self) -> int:
        """How many elements take part on all processes together."""
        return int(self.counts.sum() if self.members is None else self.counts[list(self.members)].sum())

    def add_up(self, sums: npt.NDArray[np.float64]) -> None:
        """Add the other processes' sums for each tensor that is spread, in place."""
        for over in dict.fromkeys(filter(None, self.groups)):
            chosen = [i for i, groups in enumerate(self.groups) if groups == over]
            part = torch.from_numpy(sums[chosen])
            mesh.add_up(part, over)
            sums[chosen] = part.numpy()


class Launch:
    """Tensors of a bucket that share a variant, with the job that its kernels are called with.

    Args:
        variant: what to compute.
        arrays: how the tensors are stored.
        table: for each tensor the number of its row of values, its row's length and its addresses.
        chunks: the chunks that take part. Those of strangers come last, in order.
        spans: how large each tensor is, and over which processes it is spread.
        rows: how many rows of step values there are.
        strangers: gradients of another layout or type than their parameters, by the numbers of their tensors.
        params: the parameters, for the layout that the strangers' gradients are wanted in.
    """

    def __init__(
        self,
        variant: Variant,
        arrays: Layout,
        table: Integers,
        chunks: Integers,
        spans: Spans,
        rows: int,
        strangers: Mapping[int, torch.Tensor] = MappingProxyType({}),
        params: Sequence[torch.Tensor] = (),
    ):
        self.variant, self.chunks, self.spans = variant, chunks, spans
        self.rounds = phases(variant)
        self.columns = {node: i for i, node in enumerate(node for nodes in self.rounds for node in nodes)}
        self.kernels = kernels(variant, arrays)
        self.elements = int(chunks[:, 2].sum())
        self.values = np.zeros((rows, max(1, len(variant.row))))
        self.partials = np.zeros((len(chunks), max((len(nodes) for nodes in self.rounds), default=0)))
        self.reduced = np.zeros((len(table), len(self.columns)))
        self.tables = (chunks, table, self.values, self.partials, self.reduced)
        self.job = np.array([0, 0, *(array.ctypes.data for array in self.tables)], dtype=np.int64)
        self.job_address = self.job.ctypes.data
        self.chunks_at, self.partials_at = int(self.job[2]), int(self.job[5])
        self.batches = batches(chunks, table, strangers, params) if strangers else ()
        self.own = self.batches[0].first if self.batches else len(chunks)
        self.job[1] = self.own

    def aim(self, phase: int, first: int, last: int) -> None:
        """Let the job's next run be a phase's kernel over the chunks from ``first`` to before ``last``."""
        self.job[0], self.job[1] = 0, last - first
        if self.batches:
            width = len(self.rounds[phase]) if phase < len(self.rounds) else 0
            self.job[2] = self.chunks_at + first * self.chunks.strides[0]
            self.job[5] = self.partials_at + first * width * self.partials.itemsize

    def spans_the_model(self, phase: int) -> bool:
        """Whether a phase ends in a reduction that needs the other launches' sums."""
        return any(node.level == Level.MODEL for node in self.rounds[phase])

    def sums(self, phase: int) -> dict[Expr, Any]:
        """For each reduction of a phase, its value for each tensor (a sum still, where it is a mean over the model)."""
        nodes = self.rounds[phase]
        partials = self.partials.reshape(-1)[: len(self.chunks) * len(nodes)].reshape(len(self.chunks), len(nodes))
        result: dict[Expr, Any] = {}
        for i, node in enumerate(nodes):
            total = np.bincount(self.chunks[:, 0], partials[:, i], len(self.reduced)).astype(np.float64, copy=False)
            self.spans.add_up(total)
            per_tensor = node.op == "mean" and node.level == Level.TENSOR
            result[node] = total / np.maximum(self.spans.counts, 1) if per_tensor else total
        return result

    def learn(self, values: dict[Expr, Any]) -> None:
        """Give the kernels the reductions that are known now."""
        for node, value in values.items():
            self.reduced[:, self.columns[node]] = value

    def reports(self) -> dict[str, float]:
        """What the variant's transforms report of the step."""
        if not self.variant.reports:
            return {}
        values = {f"row[{i}]": value for i, value in enumerate(self.values[0].tolist())}
        known: dict[Expr, Any] = {node: float(self.reduced[0, column]) for node, column in self.columns.items()}
        return {name: float(on_host(value, values, known)) for name, value in self.variant.reports.items()}


@dataclass
class _Piece:
    """Some rows of a gradient, ordered as the parameter's memory is, and the type that they are wanted in."""

    tensor: int
    gradient: torch.Tensor
    dtype: torch.dtype
    first: int
    last: int


@dataclass
class Batch:
    """Chunks whose gradients are copied into their parameters' layout right before they are needed.

    Attributes:
        first, last: the chunks, from ``first`` to before ``last``.
        table: the launch's table, in which the copies are entered.
        pieces: what to copy.
    """

    first: int
    last: int
    table: Integers
    pieces: list[_Piece] = field(default_factory=list)

    def elements(self) -> int:
        return sum((piece.last - piece.first) * _row(piece.gradient) for piece in self.pieces)

    def borrow(self) -> list[torch.Tensor]:
        """Copy the pieces; what is returned must live as long as the kernel runs."""
        copies: list[torch.Tensor] = []
        for piece in self.pieces:
            rows = piece.gradient[piece.first : piece.last]
            copy = torch.empty(rows.shape, dtype=piece.dtype).copy_(rows)
            offset = piece.first * _row(piece.gradient) * copy.element_size()
            self.table[piece.tensor, FIRST_ADDRESS + 1] = copy.data_ptr() - offset
            copies.append(copy)
        return copies


def batches(
    chunks: Integers, table: Integers, strangers: Mapping[int, torch.Tensor], params: Sequence[torch.Tensor]
) -> tuple[Batch, ...]:
    """Pack the strangers' chunks, the last ones of the table, into batches of bounded size (a row at the least)."""
    found: list[Batch] = []
    ordered = {i: _in_order_of(params[i], gradient) for i, gradient in strangers.items()}
    for number, (i, start, count) in enumerate(chunks.tolist()):
        if i not in strangers:
            continue
        gradient = ordered[i]
        row = _row(gradient) * (2 if gradient.is_complex() else 1)
        first, last = start // row, -(-(start + count) // row)
        if not found or found[-1].elements() >= BORROWED:
            found.append(Batch(number, number, table))
        batch = found[-1]
        if batch.pieces and batch.pieces[-1].tensor == i:
            batch.pieces[-1].last = last
        else:
            batch.pieces.append(_Piece(i, gradient, params[i].dtype, first, last))
        batch.last = number + 1
    return tuple(found)


def _row(x: torch.Tensor) -> int:
    return x.numel() // x.shape[0]


def _in_order_of(p: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient with its dimensions in the order in which the parameter lies in memory."""
    if not p.ndim:
        return gradient.reshape(1)
    order = sorted(range(p.ndim), key=lambda d: (p.stride(d), p.shape[d]), reverse=True)
    return gradient.permute(order)
