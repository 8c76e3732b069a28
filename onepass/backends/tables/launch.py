"""What every launch has: a variant, the chunks it goes over, and what is to be summed on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from onepass.backends import mesh
from onepass.backends.tables.strangers import Integers, batches
from onepass.backends.tables.writing import Layout, over_model, phases
from onepass.compiler import Variant
from onepass.lang import Level


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
    """Tensors of a bucket that share a variant.

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
        self.variant, self.table, self.chunks, self.spans = variant, table, chunks, spans
        self.rounds = phases(variant)
        # For each of the reductions over the model, the phase that computes this launch's part of it.
        self.over_model = over_model(self.rounds)
        self.model_nodes = [node for nodes in self.rounds for node in nodes if node.level == Level.MODEL]
        self.columns = {node: i for i, node in enumerate(node for nodes in self.rounds for node in nodes)}
        self.elements = int(chunks[:, 2].sum())
        self.values = np.zeros((rows, max(1, len(variant.row))))
        self.batches = batches(chunks, table, strangers, params) if strangers else ()
        self.own = self.batches[0].first if self.batches else len(chunks)
