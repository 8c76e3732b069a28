"""What is run on a GPU: the kernels of a bucket, the tables they read, and the sums between their phases."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import torch

from onepass.backends import mesh
from onepass.backends.tables import launch as tables
from onepass.backends.tables.cache import CannotCompile, cache_folder, keep
from onepass.backends.tables.launch import Spans
from onepass.backends.tables.strangers import Integers
from onepass.backends.tables.writing import FIRST_ADDRESS, ROW_LENGTH
from onepass.backends.triton import words
from onepass.backends.triton.emit import Tiled
from onepass.backends.triton.mirror import Mirror
from onepass.backends.triton.plan import Plan, plan_of
from onepass.compiler import Variant

# Bytes that a thread moves at once.
VECTOR = 16


@cache
def module_of(source: str) -> ModuleType:
    """The module with this source; Triton reads it again from the file that it stands in."""
    name = f"onepass_{hashlib.sha256(source.encode()).hexdigest()[:24]}"
    path = cache_folder() / "triton" / f"{name}.py"
    if not _holds(path, source) and not keep(path, source.encode()):
        path = Path(tempfile.mkdtemp(prefix="onepass-")) / f"{name}.py"
        path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _holds(path: Path, source: str) -> bool:
    try:
        return path.read_text() == source
    except (OSError, UnicodeDecodeError):
        return False


class Launch(tables.Launch):
    """A launch whose tables lie on a device.

    Args:
        device: where the tensors are.
        places: the bucket's table and its copy on the device.
        plan: the kernels; by default those of the one variant.
        extra: what the kernels take besides, where they choose a variant themselves.
    """

    def __init__(
        self,
        variant: Variant,
        arrays: Tiled,
        table: Integers,
        chunks: Integers,
        spans: Spans,
        rows: int,
        strangers: Mapping[int, torch.Tensor] = MappingProxyType({}),
        params: Sequence[torch.Tensor] = (),
        *,
        device: torch.device,
        places: Mirror,
        plan: Plan | None = None,
        extra: Sequence[torch.Tensor] = (),
    ):
        super().__init__(variant, arrays, table, chunks, spans, rows, strangers, params)
        self.device, self.extra, self.places = device, tuple(extra), places
        self.plan = plan or plan_of(variant)
        self.rounds = self.plan.parts[0].rounds
        self.over_model = [i for i, sums in enumerate(self.plan.sums) for each in sums if each.over_model]
        self.sent_chunks = Mirror(chunks, device, bool(extra))
        # Step values that the host computes; otherwise a kernel writes them.
        self.sent_values = None if extra else Mirror(self.values, device)
        numbers = {"dtype": torch.float64, "device": device}
        self.rows = self.sent_values.copy if self.sent_values else torch.zeros((len(table), self.plan.width), **numbers)
        widths = [len(sums) for sums in self.plan.sums]
        self.partials = torch.zeros(len(chunks) * max(widths, default=0) + 1, **numbers)
        self.reduced = torch.zeros((len(table), max(1, self.plan.columns)), **numbers)
        self.total = torch.zeros((), **numbers)
        extents = np.zeros((len(table), 2), dtype=np.int64)
        tensors, firsts, counts = np.unique(chunks[:, 0], return_index=True, return_counts=True)
        extents[tensors, 0], extents[tensors, 1] = firsts, firsts + counts
        self.extents = torch.from_numpy(extents).to(device)
        self.counts = torch.from_numpy(np.maximum(spans.counts, 1)).to(device)
        self.is_spread = any(spans.groups)
        module = module_of(self.plan.source(arrays))
        self.kernels = [getattr(module, f"phase_{i}") for i in range(len(widths) + 1)]
        self.align: int | None = None
        self._compiled: set[int] = set()

    def send(self) -> None:
        """Bring the tables up to date, and compile what is needed for them, before anything is changed."""
        with on(self.device):
            self.send_places()
            self.sent_chunks.send()
            if self.sent_values is not None:
                self.sent_values.send()
            if self.batches:
                # What is copied may lie anywhere.
                self.compile(VECTOR)
                self.compile(1)

    def send_places(self) -> None:
        if self.places.send() or self.align is None or self.batches:
            self.align = alignment(self.table, self.plan.has_rows)
            self.compile(self.align)

    def compile(self, align: int) -> None:
        """Have the kernels ready for tables of this alignment."""
        if align in self._compiled:
            return
        try:
            for phase, kernel in enumerate(self.kernels):
                words.prepare(kernel, *self.arguments(phase, 0), ALIGN=align)
        except Exception as error:
            raise CannotCompile(f"Triton cannot compile for {self.device} ({error})") from error
        self._compiled.add(align)

    def arguments(self, phase: int, first: int) -> tuple[torch.Tensor, ...]:
        chunks, partials = self.sent_chunks.copy, self.partials
        if first:
            width = len(self.plan.sums[phase]) if phase < len(self.plan.sums) else 0
            chunks, partials = chunks[first:], partials[first * width :]
        return (chunks, self.places.copy, self.rows, partials, self.reduced, *self.extra)

    def run(self, phase: int) -> None:
        """Run the kernel of a phase: over the chunks that are as they should be, then over those to be copied first."""
        with on(self.device):
            if self.own:
                self._run(phase, 0, self.own)
            for batch in self.batches:
                # The memory of the copies is given out again only to what comes later on this stream.
                copies = batch.borrow()
                self.send_places()
                self._run(phase, batch.first, batch.last)
                copies.clear()

    def _run(self, phase: int, first: int, last: int) -> None:
        arguments = self.arguments(phase, first)
        words.launch(self.kernels[phase], last - first, *arguments, ALIGN=self.align)

    def reduce(self, phase: int) -> None:
        """From the chunks' partial sums to the tensors' sums and means."""
        sums = self.plan.sums[phase]
        with on(self.device):
            for i, each in enumerate(sums):
                divides = each.is_mean and not each.over_model
                words.launch(
                    words.add_up,
                    len(self.table),
                    self.partials,
                    self.extents,
                    self.counts,
                    self.reduced,
                    WIDTH=len(sums),
                    NODE=i,
                    COLUMNS=self.reduced.shape[1],
                    COLUMN=each.column,
                    MEAN=divides and not self.is_spread,
                    BLOCK=256,
                )
                if self.is_spread:
                    self._add_up_over_processes(each.column)
                    if divides:
                        self.reduced[:, each.column].div_(self.counts)

    def _add_up_over_processes(self, column: int) -> None:
        for over in dict.fromkeys(filter(None, self.spans.groups)):
            chosen = [i for i, groups in enumerate(self.spans.groups) if groups == over]
            part = self.reduced[chosen, column]
            mesh.add_up(part, over)
            self.reduced[chosen, column] = part


def alignment(table: Integers, by_rows: bool) -> int:
    """What every address, and every row's length where rows matter, is a multiple of: 16, or 1 for anything."""
    aligned = not (table[:, FIRST_ADDRESS:] % VECTOR).any()
    return VECTOR if aligned and not (by_rows and (table[:, ROW_LENGTH] % VECTOR).any()) else 1


def on(device: torch.device) -> AbstractContextManager[Any]:
    """What is launched inside goes to this device, on its current stream."""
    return nullcontext() if device.type == "cpu" else torch.get_device_module(device).device(device)


def reduce_over_the_model(launches: Sequence[Launch], i: int) -> None:
    """Add up a reduction over the model, in a fixed order, and tell every launch; other devices' sums come over."""
    sums = [[each for part in launch.plan.sums for each in part if each.over_model][i] for launch in launches]
    first = launches[0]
    for launch, each in zip(launches, sums, strict=True):
        with on(launch.device):
            torch.sum(launch.reduced[:, each.column], 0, out=launch.total)
    for launch in launches[1:]:
        first.total.add_(launch.total.to(first.device, non_blocking=True))
    if sums[0].is_mean:
        first.total.div_(sum(launch.spans.elements() for launch in launches))
    for launch, each in zip(launches, sums, strict=True):
        launch.reduced[:, each.column].copy_(first.total, non_blocking=True)
