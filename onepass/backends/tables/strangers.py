"""Gradients in another layout than their parameters, copied into shape a bounded number of elements at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from onepass.backends.tables.launch import Integers
from onepass.backends.tables.writing import FIRST_ADDRESS

# Elements of such gradients that are copied at a time.
BORROWED = 2**19


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
            copy = torch.empty(rows.shape, dtype=piece.dtype, device=rows.device).copy_(rows)
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
