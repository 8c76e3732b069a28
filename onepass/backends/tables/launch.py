"""What every launch has: a variant, the chunks it goes over, and what is to be summed on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from onepass.backends.tables.writing import Layout, over_model, phases
from onepass.compiler import Program, Variant, walk
from onepass.lang import Level

if TYPE_CHECKING:
    import torch

Integers = npt.NDArray[np.int64]

# Elements of a chunk: enough to hide what claiming one costs, few enough for the threads to share the work evenly.
CHUNK = 16384
# A tensor of so many elements has chunks enough at any size, and longer runs through memory are faster.
LARGE, LONG_CHUNK = 2**20, 65536


@cache
def rows_matter(program: Program) -> bool:
    """Whether a program reduces over the rows of a tensor, so that chunks must be whole rows."""
    return any(node.level == Level.ROW for node in walk([program.parameter, *program.states.values()]))


def cut(counts: Sequence[int], rows: Sequence[int], chunk: int = CHUNK, long_chunk: int = LONG_CHUNK) -> Integers:
    """The chunk table: for each chunk its tensor, its first element and its number of elements.

    Args:
        counts: for each tensor its number of elements.
        rows: for each tensor the length of what a chunk must hold whole, 1 where it may be cut anywhere.
        chunk, long_chunk: how many elements a chunk of a small and of a large tensor should have.
    """
    chunks: list[tuple[int, int, int]] = []
    for i, (count, row) in enumerate(zip(counts, rows, strict=True)):
        size = max(row, (chunk if count < LARGE else long_chunk) // row * row)
        chunks += [(i, start, min(size, count - start)) for start in range(0, count, size)]
    return np.array(chunks, dtype=np.int64).reshape(-1, 3)


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
        spread = dict.fromkeys(filter(None, self.groups))
        if not spread:
            return
        # Only here, and for strangers, is torch needed: frameworks without it have launches too.
        import torch

        from onepass.backends import mesh

        for over in spread:
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
        self.batches = _batches(chunks, table, strangers, params) if strangers else ()
        self.own = self.batches[0].first if self.batches else len(chunks)


def _batches(*arguments: Any) -> tuple[Any, ...]:
    from onepass.backends.tables.strangers import batches

    return batches(*arguments)


Kind = TypeVar("Kind", bound=Launch)


def run_reductions(
    launches: Sequence[Kind],
    run: Callable[[Sequence[tuple[Kind, int]]], None],
    finish: Callable[[Sequence[Kind], int], None],
) -> None:
    """Run the phases that only read.

    One variant can need more of them than another before it comes to a reduction over the model; whoever has computed
    its part goes on when all have.

    Args:
        launches: what is to be run.
        run: takes launches, each with the number of its phase, and runs these.
        finish: takes the launches and the number of a reduction over the model, adds up and lets all know the result.

    Raises:
        RuntimeError: they do not have the same reductions over the model.
    """
    if len({len(launch.over_model) for launch in launches}) > 1:
        raise RuntimeError(
            "parameters that share a reduction over the model must be updated by the same rule, and these are not: "
            "give the rules an optimizer each"
        )
    phases = dict.fromkeys(launches, 0)
    finished = 0
    while waiting := [launch for launch in launches if phases[launch] < len(launch.rounds)]:
        jobs = [(launch, phases[launch]) for launch in waiting if _computed(launch, phases[launch]) == finished]
        run(jobs)
        for launch, phase in jobs:
            phases[launch] = phase + 1
        computed = min(_computed(launch, phases[launch]) for launch in launches)
        for i in range(finished, computed):
            finish(launches, i)
        finished = computed


def _computed(launch: Launch, phases: int) -> int:
    """How many of the reductions over the model a launch has computed its part of after so many phases."""
    return sum(phase < phases for phase in launch.over_model)
