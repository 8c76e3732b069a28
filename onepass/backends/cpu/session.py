"""Run the launches of a step on the CPU's threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain

import numpy as np
import torch

from onepass.backends.cpu import machine, threads
from onepass.backends.cpu.launch import Bucket, Launch
from onepass.backends.tables import session
from onepass.backends.tables.session import SHARED, run_reductions
from onepass.compiler import GUARD
from onepass.lang import Level

# Below this many elements a step is over before a second thread has woken up.
ALONE = 32768

# Runs a list of kernels, so that tensors of several programs or types need one launch all the same.
_ALL = """\
def kernel(job):
    for i in range(argument(job, 0)):
        call(argument(job, 1 + 2 * i), argument(job, 2 + 2 * i))
"""


class Session(session.Session):
    """What the CPU backend keeps for one optimizer between steps."""

    devices = frozenset({"cpu"})
    bucket = Bucket

    def launch(self, launches: Sequence[Launch]) -> Mapping[str, float]:
        run_reductions(launches, _run_phase)
        reports = launches[0].reports() if launches else {}
        if launches and not reports.get(GUARD, 0) > 0:
            _run([(launch, len(launch.rounds)) for launch in launches])
        return reports


def _run_phase(jobs: Sequence[tuple[Launch, int]]) -> None:
    _run(jobs)
    _reduce(jobs)


def _run(jobs: Sequence[tuple[Launch, int]]) -> None:
    """Run the kernel of a phase for each launch, in one visit to the pool; then for gradients to be copied first."""
    count = torch.get_num_threads() if sum(launch.elements for launch, _ in jobs) > ALONE else 1
    for launch, phase in jobs:
        launch.aim(phase, 0, launch.own)
    calls = [(launch.kernels[phase], launch.job_address) for launch, phase in jobs if launch.own]
    if len(calls) == 1:
        threads.run(*calls[0], count)
    elif calls:
        listed = np.array([len(calls), *chain.from_iterable(calls)], dtype=np.int64)
        threads.run(_run_all(), listed.ctypes.data, count)
    for launch, phase in jobs:
        for batch in launch.batches:
            copies = batch.borrow()
            launch.aim(phase, batch.first, batch.last)
            threads.run(launch.kernels[phase], launch.job_address, count)
            copies.clear()


@cache
def _run_all() -> int:
    return machine.load(_ALL, "float64")


def _reduce(jobs: Sequence[tuple[Launch, int]]) -> None:
    """Add up the partial sums of a phase, in an order that does not depend on the threads."""
    sums = [launch.sums(phase) for launch, phase in jobs]
    over_model = [[node for node in part if node.level == Level.MODEL] for part in sums]
    if len({len(nodes) for nodes in over_model}) > 1:
        raise RuntimeError(SHARED)
    count = sum(launch.spans.elements() for launch, _ in jobs)
    for nodes in zip(*over_model, strict=True):
        total = sum(float(part[node].sum()) for node, part in zip(nodes, sums, strict=True))
        for node, part in zip(nodes, sums, strict=True):
            part[node] = np.float64(total / count if node.op == "mean" else total)
    for (launch, _), part in zip(jobs, sums, strict=True):
        launch.learn(part)
