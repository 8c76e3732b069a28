"""Buckets of GPU tensors: step counts on the host, or on the device where the host is not to know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from onepass.backends.tables import bucket
from onepass.backends.tables.session import Member
from onepass.backends.tables.strangers import Integers
from onepass.backends.triton import words
from onepass.backends.triton.decide import emit_rows, plan_on_device
from onepass.backends.triton.emit import BLOCK, Tiled
from onepass.backends.triton.launch import Launch, module_of, on
from onepass.backends.triton.mirror import Mirror
from onepass.compiler import GUARD, Program, Work

# Tensors that a program instance of the small kernels takes.
_LANES = 128


class Case(NamedTuple):
    """What tensors of a bucket share besides their program and types.

    Attributes:
        device: where they are.
        aligned: whether their addresses, and their rows where rows matter, are multiples of 16 bytes.
        tile: how many columns the tiles of row reductions have.
        counts_on_device: whether their step counts are kept there.
    """

    device: torch.device
    aligned: bool
    tile: int
    counts_on_device: bool


def case_of(p: torch.Tensor, program: Program, counts_on_device: bool) -> Case:
    """The case of a parameter."""
    aligned, tile = p.data_ptr() % 16 == 0, BLOCK
    if bucket.rows_matter(program) and p.ndim:
        row = p[:1].numel()
        aligned = aligned and row % 16 == 0
        tile = next((width for width in (16, 128) if row <= width), BLOCK)
    return Case(p.device, aligned, tile, counts_on_device)


class Signals(NamedTuple):
    """What the kernels of a device are told, and tell, about steps that are skipped.

    Attributes:
        found: not 0 if a scaler found that gradients overflowed.
        never: a 0.
        skipped: how many steps `onepass.compiler.GUARD` has skipped.
    """

    found: torch.Tensor
    never: torch.Tensor
    skipped: torch.Tensor

    @classmethod
    def on(cls, device: torch.device) -> Signals:
        return cls(
            torch.zeros(1, device=device),
            torch.zeros(1, dtype=torch.float64, device=device),
            torch.zeros(1, dtype=torch.int64, device=device),
        )


class Bucket(bucket.Bucket[Launch]):
    """A bucket whose step values the host computes and sends."""

    # Less than on a CPU, for there are more who share the work.
    chunk, long_chunk = 4096, 16384

    def __init__(self, program: Program, members: Sequence[Member], case: Case):
        super().__init__(program, members)
        self.layout = Tiled(self.layout.arrays, self.layout.real, case.tile)
        self.device = case.device
        self.sent_table = Mirror(self.table, case.device, case.counts_on_device)

    def launch(self, *arguments: Any, **more: Any) -> Launch:
        return Launch(*arguments, device=self.device, places=self.sent_table, **more)


class DeviceBucket(Bucket):
    """A bucket whose step counts, scalar states and step values live on the device.

    A small kernel computes the step values in float64 from the counts and the hyperparameters; the kernels choose the
    variant from them, tensor by tensor. So a CUDA graph replays the step, and a step that is skipped is known to nobody
    but the device.
    """

    def __init__(self, program: Program, members: Sequence[Member], case: Case, signals: Signals):
        super().__init__(program, members, case)
        self.signals = signals
        # Of several buckets one counts the steps that were skipped.
        self.counts_skips = False
        self.plan = plan_on_device(program, self.ndim)
        self.rows_kernel = module_of(emit_rows(program, self.ndim)).rows
        count = len(self.params)
        self.count = torch.tensor([count], device=self.device)
        self.table[:, bucket.ROW_OF_VALUES] = np.arange(count)
        # For each tensor its parameter group, and whether it takes part.
        self.roster = Mirror(np.stack([self.usual_rows, np.ones_like(self.usual_rows)], 1), self.device, True)
        hyper = np.zeros((len(self.groups), max(1, len(program.hyperparameters))))
        self.hyper = Mirror(hyper, self.device, True)
        self.choices = torch.zeros(count, dtype=torch.int64, device=self.device)
        self.after = torch.zeros_like(self.scalar_values)
        self.whole: Launch | None = None
        self.stepping: Launch | None = None

    def _share_counters(self) -> None:
        """Make every parameter's step count, and every scalar state, a view into one vector on its device."""
        first = self.params[0]
        counts = [float(state["step"]) for state in self.states]
        self.step_values = torch.tensor(counts, dtype=torch.float32, device=first.device)
        numbers = [[float(state[key]) for state in self.states] for key in self.program.scalars]
        self.scalar_values = torch.tensor(numbers or [[0.0]], dtype=torch.float64, device=first.device)
        self.counters = {"step": list(self.step_values.unbind())}
        self.counters.update(
            zip(self.program.scalars, (list(row.unbind()) for row in self.scalar_values), strict=False)
        )
        for key, views in self.counters.items():
            for state, view in zip(self.states, views, strict=True):
                state[key] = view

    def launches(self, works: Sequence[Work], active: Integers | None) -> list[Launch]:
        self.roster.array[:, 1] = 1
        if active is not None:
            self.roster.array[:, 1] = 0
            self.roster.array[active, 1] = 1
        self.taking_part = self.owned if active is None else [self.owned[i] for i in active]
        if not (len(self.chunks) or self.is_spread):
            # Nothing to compute, and steps to be counted.
            self.stepping = None
        elif active is None and not self.strangers:
            self.stepping = self.whole = self.whole or self._launch(self.chunks, None)
        else:
            members = list(range(len(self.params))) if active is None else active.tolist()
            chunks = self.chunks[np.isin(self.chunks[:, 0], members)]
            chunks = chunks[np.argsort(np.isin(chunks[:, 0], list(self.strangers)), kind="stable")]
            self.stepping = self._launch(chunks, members)
        self.tell(works)
        return [self.stepping] if self.stepping else []

    def _launch(self, chunks: Integers, members: Sequence[int] | None) -> Launch:
        spans = self.spans if members is None else self.spans.of(members)
        strangers = {} if members is None else {i: g for i, g in self.strangers.items() if i in members}
        variant, guard = self.plan.parts[0].variant, self.signals.never
        launch = self.launch(
            variant, self.layout, self.table, chunks, spans, 0, strangers, self.params,
            plan=self.plan, extra=(self.choices, self.signals.found, guard),
        )  # fmt: skip
        if GUARD in variant.reports:
            # The count of what is not finite, the same in every tensor's row.
            guard = launch.reduced[0, self.plan.parts[0].columns[variant.reports[GUARD]] :]
            launch.extra = (*launch.extra[:2], guard)
        return launch

    def tell(self, works: Sequence[Work]) -> None:
        """Send the hyperparameters that have changed; those that are tensors are read where they are."""
        tensors: list[tuple[int, int, torch.Tensor]] = []
        for row, i in enumerate(self.groups):
            values = works[i].values
            for column, name in enumerate(self.program.hyperparameters):
                value = values[name]
                if isinstance(value, torch.Tensor):
                    tensors.append((row, column, value))
                else:
                    self.hyper.array[row, column] = value
        with on(self.device):
            self.hyper.send()
            self.roster.send()
            for row, column, value in tensors:
                self.hyper.copy[row, column].copy_(value.reshape(()), non_blocking=True)

    def compute_rows(self, launch: Launch) -> None:
        """The step values and choices of the step that is about to be taken."""
        instances = -(-len(self.params) // _LANES)
        with on(self.device):
            words.launch(
                self.rows_kernel, instances,
                self.step_values, self.scalar_values, self.hyper.copy, self.roster.copy, launch.rows, self.choices,
                self.after, self.count, BLOCK=_LANES,
            )  # fmt: skip

    def settle(self) -> None:
        """Count the step, on the device, unless it was skipped there."""
        if not self.taking_part:
            return
        launch, self.stepping = self.stepping, None
        guard = launch.extra[2] if launch else self.signals.never
        instances = -(-len(self.params) // _LANES)
        with on(self.device):
            words.launch(
                words.settle, instances,
                self.step_values, self.scalar_values, self.after, self.roster.copy, self.signals.found, guard,
                self.signals.skipped, self.count, SCALARS=len(self.program.scalars), COUNTS_SKIPS=self.counts_skips,
                BLOCK=_LANES,
            )  # fmt: skip
        torch.autograd.graph.increment_version(self.taking_part)
        self.taking_part = []
        self.strangers.clear()
