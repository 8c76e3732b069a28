"""Step all tensors of an optimizer in one launch, through tables of addresses that are kept from step to step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain
from operator import is_
from typing import Any

import numpy as np
import torch

from onepass.backends.cpu import machine, threads
from onepass.backends.cpu.bucket import Bucket, Stale, obstacle
from onepass.backends.cpu.launch import Launch
from onepass.compiler import GUARD, Program, Work, walk
from onepass.lang import Level

# Below this many elements a step is over before a second thread has woken up.
ALONE = 32768

_SHARED = "parameters that share a reduction over the model must be updated by the same rule"

# Runs a list of kernels, so that tensors of several programs or types need one launch all the same.
_ALL = """\
def kernel(job):
    for i in range(argument(job, 0)):
        call(argument(job, 1 + 2 * i), argument(job, 2 + 2 * i))
"""


class Session:
    """What the CPU backend keeps for one optimizer between steps."""

    def __init__(self) -> None:
        self.plan: _Plan | None = None

    def gather(self, works: Sequence[Work], states: Mapping[Any, Any]) -> list[Work]:
        """Look at every parameter, state and gradient; nothing is changed yet.

        Args:
            works: the parameter groups.
            states: the optimizer's states, by parameter.

        Returns:
            What the kernels cannot take, for another backend: sparse gradients, and what `why` gives reasons for.

        Raises:
            RuntimeError: a gradient is sparse where that cannot be.
        """
        if self.plan is None or not self.plan.is_for(works, states) or not self.plan.gather():
            self.plan = _Plan(works, states, self.plan)
            self.plan.gather()
        if not self.plan.reasons and not any(bucket.sparse for bucket in self.plan.buckets):
            return []
        left = [list(params) for params in self.plan.others]
        for bucket in self.plan.buckets:
            for i in bucket.sparse:
                left[bucket.works[i]].append(bucket.owned[i])
        return [Work(w.program, w.values, params, w.prepare) for w, params in zip(works, left, strict=True)]

    def why(self) -> list[str]:
        """Why the kernels could not take what they left."""
        return self.plan.reasons if self.plan else []

    def run(self, works: Sequence[Work]) -> dict[str, float]:
        """Take the step of everything that was gathered; what transforms report of it."""
        return self.plan.run(works) if self.plan is not None else {}


class _Plan:
    """The buckets of an optimizer: tensors that share a program, storage types and, where it matters, dimensions."""

    def __init__(self, works: Sequence[Work], states: Mapping[Any, Any], before: _Plan | None):
        self.programs = [work.program for work in works]
        self.params = [list(work.params) for work in works]
        found = {id(p): obstacle(p, work.program) for work in works for p in work.params}
        self.reasons = sorted({reason for reason in found.values() if reason})
        if self.reasons and any(_spans_the_model(work.program) for work in works):
            # What spans the model must be computed in one place.
            found = dict.fromkeys(found, self.reasons[0])
        self.others = [[p for p in work.params if found[id(p)]] for work in works]
        known = before.members if before else frozenset()
        members: dict[Any, list[tuple[int, Any, dict[str, Any]]]] = {}
        self.idle: list[Any] = []
        for i, work in enumerate(works):
            for p in work.params:
                if found[id(p)]:
                    continue
                if p.grad is None and id(p) not in known:
                    self.idle.append(p)
                    continue
                state = work.prepare(p, work.program, work.values)
                dtypes = tuple(state[key].dtype for key in work.program.states)
                ndim = p.ndim if _needs_dimensions(work.program) else 0
                members.setdefault((work.program, p.dtype, dtypes, ndim), []).append((i, p, state))
        self.buckets = [Bucket(key[0], group) for key, group in members.items()]
        self.members = frozenset(id(p) for bucket in self.buckets for p in bucket.params)
        self.active: list[Any] = []
        # Whoever puts another dict in a parameter's place in the states means the next step to start from it.
        self.entries = list(states.values())

    def is_for(self, works: Sequence[Work], states: Mapping[Any, Any]) -> bool:
        """Whether these are the groups and states that the plan was made for, and the same parameters take part."""
        return (
            len(states) == len(self.entries)
            and all(map(is_, states.values(), self.entries))
            and len(works) == len(self.programs)
            and all(
                work.program is program and len(work.params) == len(params) and all(map(is_, work.params, params))
                for work, program, params in zip(works, self.programs, self.params, strict=True)
            )
            and not any(p.grad is not None for p in self.idle)
        )

    def gather(self) -> bool:
        """Whether every tensor is where the tables say; their gradients are entered then."""
        try:
            self.active = [bucket.gather() for bucket in self.buckets]
        except Stale:
            return False
        return True

    def run(self, works: Sequence[Work]) -> dict[str, float]:
        launches = [
            launch
            for bucket, active in zip(self.buckets, self.active, strict=True)
            if active is not False
            for launch in bucket.launches(works, active)
        ]
        _run_reductions(launches)
        reports = launches[0].reports() if launches else {}
        if reports.get(GUARD, 0) > 0:
            return reports
        if launches:
            _run([(launch, len(launch.rounds)) for launch in launches])
        for bucket in self.buckets:
            bucket.settle()
        return reports


@cache
def _needs_dimensions(program: Program) -> bool:
    roots = [program.parameter, *program.states.values(), *program.scalars.values()]
    # Rows need them as well: it is they that a tensor is cut along.
    return any((node.op == "symbol" and node.data == "ndim") or node.level == Level.ROW for node in walk(roots))


@cache
def _spans_the_model(program: Program) -> bool:
    roots = [program.parameter, *program.states.values(), *program.reports.values()]
    return any(node.level == Level.MODEL for node in walk(roots))


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


def _run_reductions(launches: Sequence[Launch]) -> None:
    """Run the phases that only read.

    One variant can need more of them than another before it comes to a reduction over the model; who has come there
    waits for the rest.
    """
    finished = dict.fromkeys(launches, 0)
    while waiting := [launch for launch in launches if finished[launch] < len(launch.rounds)]:
        alone = [launch for launch in waiting if not launch.spans_the_model(finished[launch])]
        if not alone and len(waiting) < len(launches):
            raise RuntimeError(_SHARED)
        jobs = [(launch, finished[launch]) for launch in alone or waiting]
        _run(jobs)
        _reduce(jobs)
        for launch, phase in jobs:
            finished[launch] = phase + 1


def _reduce(jobs: Sequence[tuple[Launch, int]]) -> None:
    """Add up the partial sums of a phase, in an order that does not depend on the threads."""
    sums = [launch.sums(phase) for launch, phase in jobs]
    over_model = [[node for node in part if node.level == Level.MODEL] for part in sums]
    if len({len(nodes) for nodes in over_model}) > 1:
        raise RuntimeError(_SHARED)
    count = sum(launch.spans.elements() for launch, _ in jobs)
    for nodes in zip(*over_model, strict=True):
        total = sum(float(part[node].sum()) for node, part in zip(nodes, sums, strict=True))
        for node, part in zip(nodes, sums, strict=True):
            part[node] = np.float64(total / count if node.op == "mean" else total)
    for (launch, _), part in zip(jobs, sums, strict=True):
        launch.learn(part)
