"""Run the launches of a step on the CPU's threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import torch

from onepass.backends.cpu import machine, threads
from onepass.backends.cpu.bucket import Bucket
from onepass.backends.cpu.launch import Launch, finish
from onepass.backends.tables import session
from onepass.backends.tables.session import Member, run_reductions
from onepass.compiler import GUARD, Program

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

    def bucket(self, program: Program, members: Sequence[Member], case: Any) -> Bucket:
        return Bucket(program, members)

    def launch(self, launches: Sequence[Launch]) -> Mapping[str, float]:
        run_reductions(launches, _run_phase, finish)
        reports = launches[0].reports() if launches else {}
        if launches and not reports.get(GUARD, 0) > 0:
            _run([(launch, len(launch.rounds)) for launch in launches])
        return reports


def _run_phase(jobs: Sequence[tuple[Launch, int]]) -> None:
    _run(jobs)
    for launch, phase in jobs:
        launch.learn(launch.sums(phase))


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
