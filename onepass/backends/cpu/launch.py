"""What is run: kernels, and the jobs that they are called with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from onepass.backends.cpu import machine
from onepass.backends.cpu.emit import emit
from onepass.backends.tables import launch as tables
from onepass.backends.tables.writing import Layout
from onepass.compiler import Variant, on_host
from onepass.lang import Expr, Level


@cache
def kernels(variant: Variant, arrays: Layout) -> tuple[int, ...]:
    """The addresses of a variant's kernels, one a phase and the last one, compiled if need be."""
    return tuple(machine.load(source, arrays.real) for source in emit(variant, arrays))


class Launch(tables.Launch):
    """A launch with the job that its kernels are called with."""

    def __init__(self, variant: Variant, arrays: Layout, *rest: Any):
        super().__init__(variant, arrays, *rest)
        chunks, table = self.chunks, self.table
        self.kernels = kernels(variant, arrays)
        self.partials = np.zeros((len(chunks), max((len(nodes) for nodes in self.rounds), default=0)))
        self.reduced = np.zeros((len(table), len(self.columns)))
        self.tables = (chunks, table, self.values, self.partials, self.reduced)
        self.job = np.array([0, 0, *(array.ctypes.data for array in self.tables)], dtype=np.int64)
        self.job_address = self.job.ctypes.data
        self.chunks_at, self.partials_at = int(self.job[2]), int(self.job[5])
        self.job[1] = self.own

    def aim(self, phase: int, first: int, last: int) -> None:
        """Let the job's next run be a phase's kernel over the chunks from ``first`` to before ``last``."""
        self.job[0], self.job[1] = 0, last - first
        if self.batches:
            width = len(self.rounds[phase]) if phase < len(self.rounds) else 0
            self.job[2] = self.chunks_at + first * self.chunks.strides[0]
            self.job[5] = self.partials_at + first * width * self.partials.itemsize

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


def finish(launches: Sequence[Launch], i: int) -> None:
    """Add up a reduction over the model, in an order that does not depend on the threads."""
    nodes = [launch.model_nodes[i] for launch in launches]
    both = list(zip(launches, nodes, strict=True))
    total = sum(float(launch.reduced[:, launch.columns[node]].sum()) for launch, node in both)
    count = sum(launch.spans.elements() for launch in launches)
    for launch, node in both:
        launch.learn({node: np.float64(total / count if node.op == "mean" else total)})
