"""Run the launches of a step on GPUs, on the current stream of each, without waiting for any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from onepass.backends import mesh
from onepass.backends.tables import session
from onepass.backends.tables.session import Member, run_reductions
from onepass.backends.triton import words
from onepass.backends.triton.bucket import Bucket, Case, DeviceBucket, Signals, case_of
from onepass.backends.triton.launch import Launch, reduce_over_the_model
from onepass.compiler import GUARD, Program, Work, on_host
from onepass.lang import Expr


class Session(session.Session):
    """What the Triton backend keeps for one optimizer between steps."""

    devices = frozenset({"cpu"}) if words.INTERPRETED else frozenset({"cuda", "xpu"})

    def __init__(self) -> None:
        super().__init__()
        self.signals: dict[torch.device, Signals] = {}

    def case(self, p: torch.Tensor, work: Work) -> Case:
        return case_of(mesh.local(p.detach()), work.program, work.counts_on_device)

    def bucket(self, program: Program, members: Sequence[Member], case: Case) -> Bucket:
        if not case.counts_on_device:
            return Bucket(program, members, case)
        if case.device not in self.signals:
            self.signals[case.device] = Signals.on(case.device)
        return DeviceBucket(program, members, case, self.signals[case.device])

    def run(self, works: Sequence[Work], skip: torch.Tensor | None = None) -> Mapping[str, float]:
        """Take the step of everything that was gathered.

        Args:
            works: the parameter groups.
            skip: not 0 if the step is to be skipped, which only kernels read; step counts must be on the device then.
        """
        for signals in self.signals.values():
            if skip is None:
                signals.found.zero_()
            else:
                signals.found.copy_(skip.reshape(1), non_blocking=True)
        return super().run(works)

    def launch(self, launches: Sequence[Launch]) -> Mapping[str, float]:
        computing = {id(b.stepping): b for b in self._buckets() if isinstance(b, DeviceBucket) and b.stepping}
        for i, bucket in enumerate(computing.values()):
            bucket.counts_skips = i == 0
        for launch in launches:
            launch.send()
        for launch in launches:
            if id(launch) in computing:
                computing[id(launch)].compute_rows(launch)
        run_reductions(launches, _run_phase, reduce_over_the_model)
        for launch in launches:
            launch.run(len(launch.rounds))
        return Reports(launches[0]) if launches and launches[0].variant.reports else {}

    def skipped_steps(self) -> int:
        """How many steps were skipped on the devices for a gradient that was not finite. Waits for them."""
        return sum(int(signals.skipped) for signals in self.signals.values())

    def _buckets(self) -> Sequence[Any]:
        return self.plan.buckets if self.plan else []


def _run_phase(jobs: Sequence[tuple[Launch, int]]) -> None:
    for launch, phase in jobs:
        launch.run(phase)
    for launch, phase in jobs:
        launch.reduce(phase)


class Reports(Mapping[str, float]):
    """What a step's transforms report, read from the device when it is asked for.

    What the kernels look at themselves, `GUARD`, is not among it.
    """

    def __init__(self, launch: Launch):
        self._read: Callable[[], dict[str, float]] | None = _reader(launch)
        self._names = tuple(name for name in launch.variant.reports if name != GUARD)
        self._values: dict[str, float] = {}

    def __getitem__(self, name: str) -> float:
        if name not in self._names:
            raise KeyError(name)
        if self._read is not None:
            self._values, self._read = self._read(), None
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _reader(launch: Launch) -> Callable[[], dict[str, float]]:
    """What reads the reports of the last step of a launch."""

    def read() -> dict[str, float]:
        # Of the tensors that took part, the first: all of them know the same.
        tensor = int(launch.chunks[0, 0]) if len(launch.chunks) else 0
        part = launch.plan.parts[0]
        if part.choice is not None:
            number = int(launch.extra[0][tensor])
            part = next(each for each in launch.plan.parts if each.choice == number)
        row = launch.rows[tensor if part.choice is not None else int(launch.table[tensor, 0])].tolist()
        reduced = launch.reduced[tensor].tolist()
        values = {f"row[{i}]": row[place] for i, place in enumerate(part.places)}
        known: dict[Expr, Any] = {node: reduced[column] for node, column in part.columns.items()}
        reports = part.variant.reports.items()
        return {name: float(on_host(value, values, known)) for name, value in reports if name != GUARD}

    return read
