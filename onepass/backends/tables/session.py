"""Step all tensors of an optimizer in few launches, through tables of addresses that are kept from step to step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from operator import is_
from typing import Any

import torch

from onepass.backends.tables.bucket import Bucket, Stale, obstacle
from onepass.backends.tables.launch import run_reductions
from onepass.compiler import GUARD, Program, Work, walk
from onepass.lang import Level

__all__ = ["Member", "Plan", "Session", "run_reductions"]

# The number of its parameter group, a parameter, and its states.
Member = tuple[int, Any, dict[str, Any]]


class Session(ABC):
    """What a backend keeps for one optimizer between steps."""

    # The types of devices that it serves.
    devices: Collection[str]

    def __init__(self) -> None:
        self.plan: Plan | None = None

    def case(self, p: torch.Tensor, work: Work) -> Hashable:
        """What else tensors must share to be in one bucket."""
        return None

    @abstractmethod
    def bucket(self, program: Program, members: Sequence[Member], case: Any) -> Bucket[Any]:
        """A bucket of tensors that agree in all that matters, ``case`` included."""

    @abstractmethod
    def launch(self, launches: Sequence[Any]) -> Mapping[str, float]:
        """Run them all, and return what transforms report; a report of `GUARD` that is not 0 must write nothing."""

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
            self.plan = Plan(self, works, states, self.plan)
            self.plan.gather()
        if not self.plan.reasons and not any(bucket.sparse for bucket in self.plan.buckets):
            return []
        left = [list(params) for params in self.plan.others]
        for bucket in self.plan.buckets:
            for i in bucket.sparse:
                left[bucket.works[i]].append(bucket.owned[i])
        return [replace(work, params=params) for work, params in zip(works, left, strict=True)]

    def why(self) -> list[str]:
        """Why the kernels could not take what they left."""
        return self.plan.reasons if self.plan else []

    def run(self, works: Sequence[Work]) -> Mapping[str, float]:
        """Take the step of everything that was gathered; what transforms report of it."""
        return self.plan.run(works) if self.plan is not None else {}


class Plan:
    """The buckets of an optimizer: tensors that share a program, storage types and, where it matters, dimensions."""

    def __init__(self, session: Session, works: Sequence[Work], states: Mapping[Any, Any], before: Plan | None):
        self.session = session
        self.programs = [work.program for work in works]
        self.params = [list(work.params) for work in works]
        found = {id(p): obstacle(p, work.program, session.devices) for work in works for p in work.params}
        self.reasons = sorted({reason for reason in found.values() if reason})
        if self.reasons and any(_spans_the_model(work.program) for work in works):
            # What spans the model must be computed in one place.
            found = dict.fromkeys(found, self.reasons[0])
        self.others = [[p for p in work.params if found[id(p)]] for work in works]
        known = before.members if before else frozenset()
        members: dict[Any, list[Member]] = {}
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
                members.setdefault((work.program, p.dtype, dtypes, ndim, session.case(p, work)), []).append(
                    (i, p, state)
                )
        self.buckets = [session.bucket(key[0], group, key[-1]) for key, group in members.items()]
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

    def run(self, works: Sequence[Work]) -> Mapping[str, float]:
        """Take the step of everything that was gathered."""
        launches = [
            launch
            for bucket, active in zip(self.buckets, self.active, strict=True)
            if active is not False
            for launch in bucket.launches(works, active)
        ]
        reports = self.session.launch(launches)
        if reports.get(GUARD, 0) > 0:
            return reports
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
