"""A bucket: the tensors that one kernel can take together, and the tables by which it finds them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from operator import attrgetter, getitem, is_
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from onepass.backends import mesh
from onepass.backends.gradients import check_layouts
from onepass.backends.tables.launch import CHUNK, LONG_CHUNK, Launch, Spans, cut, rows_matter
from onepass.backends.tables.strangers import Integers
from onepass.backends.tables.writing import FIRST_ADDRESS, ROW_LENGTH, ROW_OF_VALUES, layout
from onepass.compiler import Program, Situation, Variant, Work

# What lies in memory for each type; complex numbers are pairs of reals.
_STORAGE = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.complex64: "float32",
    torch.complex128: "float64",
}
_gradient, _dtype = attrgetter("grad"), attrgetter("dtype")
_address, _stride, _size, _negated = torch.Tensor.data_ptr, torch.Tensor.stride, torch.Tensor.numel, torch.Tensor.is_neg
_conjugated = torch.Tensor.is_conj


class Stale(Exception):
    """The tensors are no longer those that the tables were made for."""


def is_dense(x: torch.Tensor) -> bool:
    """Whether the elements of ``x`` fill a block of memory without holes or overlaps, in any order."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def obstacle(p: torch.Tensor, program: Program, devices: Collection[str]) -> str | None:
    """Why kernels for these types of devices cannot take a parameter, or None if they can.

    Raises:
        RuntimeError: it is spread over processes in a way that no backend can take.
    """
    refusal = mesh.obstacle(p, rows_matter(program))
    if refusal:
        raise RuntimeError(f"{program.name}: {refusal}")
    p = mesh.local(p.detach())
    if p.device.type not in devices:
        return f"a parameter is on {p.device}"
    if p.layout is not torch.strided or type(p) not in (torch.Tensor, torch.nn.Parameter):
        return f"a parameter is a {type(p).__name__} of layout {p.layout}"
    if p.dtype not in _STORAGE:
        return f"a parameter is of type {p.dtype}"
    if p.is_complex() and not program.is_elementwise:
        return "a complex parameter meets a reduction"
    if not is_dense(p):
        return f"a parameter of shape {tuple(p.shape)} and strides {p.stride()} has holes or overlaps"
    if rows_matter(program) and p.ndim > 1 and p.numel() and p.shape[0] > 1 and p.stride(0) * p.shape[0] != p.numel():
        return f"a parameter of shape {tuple(p.shape)} and strides {p.stride()} has rows that are no blocks of memory"
    return None


Kind = TypeVar("Kind", bound=Launch)


class Bucket(Generic[Kind]):
    """Tensors that share a program, their storage types and, where the program asks for it, their dimensions."""

    # What a backend runs, and how it cuts tensors up.
    launch: Callable[..., Kind]
    chunk, long_chunk = CHUNK, LONG_CHUNK

    def __init__(self, program: Program, members: Sequence[tuple[int, torch.Tensor, dict[str, Any]]]):
        self.program = program
        self.works = [i for i, _, _ in members]
        # As the optimizer has them, and this process's parts of them: the same, unless they are spread over processes.
        self.owned = [p for _, p, _ in members]
        self.is_spread = any(map(mesh.is_spread, self.owned))
        self.params = self._parts(self.owned)
        self.states = [state for _, _, state in members]
        first, state = self.params[0], self.states[0]
        tensors = {"p": first, "g": first, **{f"state.{key}": state[key] for key in program.states}}
        self.layout = layout({name: _STORAGE[tensor.dtype] for name, tensor in tensors.items()})
        self.ndim = first.ndim
        for p, state in zip(self.owned, self.states, strict=True):
            for key in program.states:
                if mesh.local(state[key]).stride() != mesh.local(p).stride() or state[key].device != p.device:
                    state[key] = torch.empty_like(p, dtype=state[key].dtype).detach().copy_(state[key])
        self.strides = [p.stride() for p in self.params]
        self.dtypes = [p.dtype for p in self.params]
        self.sizes = [p.numel() for p in self.params]
        self.is_complex = first.is_complex()
        factor = 2 if self.is_complex else 1
        self.counts = factor * np.array(self.sizes, dtype=np.int64)
        self.spans = Spans(factor * np.array([p.numel() for p in self.owned]), [mesh.groups(p) for p in self.owned])
        self.chunks = self._cut()
        self._share_counters()
        # Every state under its parameter's dict and its key, to see that none has been replaced.
        keys = [*program.states, *self.counters]
        self.state_dicts = [state for _ in keys for state in self.states]
        self.state_keys = [key for key in keys for _ in self.states]
        self.state_tensors = [state[key] for state, key in zip(self.state_dicts, self.state_keys, strict=True)]
        # What the table holds the addresses of, column by column.
        self.placed = self.owned + self.state_tensors[: len(program.states) * len(self.params)]
        self.places = list(map(_address, self._parts(self.placed)))
        self.table = np.zeros((len(self.params), self.layout.columns), dtype=np.int64)
        self.table[:, ROW_LENGTH] = [max(1, factor * p[:1].numel()) if p.ndim else 1 for p in self.params]
        columns = np.array(self.places, dtype=np.int64).reshape(-1, len(self.params)).T
        self.table[:, FIRST_ADDRESS], self.table[:, FIRST_ADDRESS + 2 :] = columns[:, 0], columns[:, 1:]
        self.groups = list(dict.fromkeys(self.works))
        self.usual_rows = np.array([self.groups.index(i) for i in self.works], dtype=np.int64)
        self.usual: dict[Variant, Kind] = {}
        self.nothing = [None] * len(self.params)
        # The counters as the last step left them, if they were all alike: (their bytes, count, scalar states).
        self.alike: tuple[bytes, float, tuple[float, ...]] | None = None
        # Of the step under way: who takes part, with what scalar states after it; gradients in another layout.
        self.pending: list[tuple[int | slice, tuple[float, ...]]] = []
        self.taking_part: list[torch.Tensor] = []
        self.strangers: dict[int, torch.Tensor] = {}
        self.sparse: list[int] = []

    def _parts(self, tensors: Sequence[Any]) -> list[Any]:
        return [mesh.local(x) for x in tensors] if self.is_spread else list(tensors)

    def _cut(self) -> Integers:
        """The chunk table: for each chunk its tensor, its first element and its number of elements."""
        rows = rows_matter(self.program) and self.ndim > 1
        counts = self.counts.tolist()
        lengths = [n // p.shape[0] if rows and n else 1 for p, n in zip(self.params, counts, strict=True)]
        return cut(counts, lengths, self.chunk, self.long_chunk)

    def _share_counters(self) -> None:
        """Make every parameter's step count, and every scalar state, a view into one vector."""
        counters = torch.tensor([float(state["step"]) for state in self.states], dtype=torch.float32)
        self.steps = counters.numpy()
        self.counters = {"step": [counters[i] for i in range(len(self.states))]}
        self.scalars: dict[str, npt.NDArray[np.float64]] = {}
        for key in self.program.scalars:
            values = torch.tensor([float(state[key]) for state in self.states], dtype=torch.float64)
            self.scalars[key] = values.numpy()
            self.counters[key] = [values[i] for i in range(len(self.states))]
        for key, views in self.counters.items():
            for state, view in zip(self.states, views, strict=True):
                state[key] = view

    def gather(self) -> Integers | bool | None:
        """Check that every tensor is where the table says, and enter the gradients.

        Returns:
            None if all parameters have a gradient, the indices of those that have one, or False if none has.

        Raises:
            Stale: a parameter or a state has been replaced, moved or cast.
            RuntimeError: a gradient is sparse where that cannot be.
        """
        self.pending.clear()
        self.strangers.clear()
        self.sparse.clear()
        if (
            not all(map(is_, map(getitem, self.state_dicts, self.state_keys), self.state_tensors))
            or list(map(_address, self._parts(self.placed) if self.is_spread else self.placed)) != self.places
            or list(map(_stride, self.params)) != self.strides
        ):
            raise Stale
        grads = list(map(_gradient, self.owned))
        active = None
        if any(map(is_, grads, self.nothing)):
            active = np.array([i for i, g in enumerate(grads) if g is not None], dtype=np.int64)
            if not len(active):
                return False
            # A parameter that does not take part needs an address all the same; no chunk leads to it.
            grads = [p if g is None else g for p, g in zip(self.params, grads, strict=True)]
        if self.is_spread:
            grads = self._parts(grads)
        if (
            list(map(_stride, grads)) != self.strides
            or list(map(_dtype, grads)) != self.dtypes
            or list(map(_size, grads)) != self.sizes
            or any(map(_negated, grads))
            or (self.is_complex and any(map(_conjugated, grads)))
        ):
            grads = self._set_strangers_apart(grads)
        self.table[:, FIRST_ADDRESS + 1] = list(map(_address, grads))
        if self.sparse:
            # Their rows are another backend's.
            everyone = np.arange(len(self.params)) if active is None else active
            active = np.setdiff1d(everyone, self.sparse)
            return active if len(active) else False
        return active

    def _set_strangers_apart(self, grads: list[Any]) -> list[Any]:
        """Note the gradients of another layout or type than their parameters; others take their place in the table."""
        check_layouts(self.program, self.owned)
        for i, (p, g, dtype) in enumerate(zip(self.params, grads, self.dtypes, strict=True)):
            if p.dtype != dtype:
                raise Stale
            if g.layout is not torch.strided:
                self.sparse.append(i)
                continue
            if g.shape != p.shape:
                raise RuntimeError(
                    f"{self.program.name}: the gradient of a parameter of shape {tuple(p.shape)} "
                    f"has the shape {tuple(g.shape)}"
                )
            if p.numel() and (g.stride() != p.stride() or g.dtype != dtype or g.is_neg() or g.is_conj()):
                self.strangers[i] = g
        aside = {*self.strangers, *self.sparse}
        return [self.params[i] if i in aside else g for i, g in enumerate(grads)]

    def launches(self, works: Sequence[Work], active: Integers | None) -> list[Kind]:
        """What to run for the parameters that take part, and note what is to be settled afterwards."""
        alike = self._counts_alike() if active is None and not self.strangers else None
        if alike is None:
            return self._mixed(works, range(len(self.params)) if active is None else active.tolist())
        return self._usual(works, *alike)

    def _counts_alike(self) -> tuple[float, tuple[float, ...]] | None:
        """The step count and scalar states that all parameters have, or None if they differ."""
        content = self._counter_bytes()
        if self.alike is not None and self.alike[0] == content:
            return self.alike[1:]
        values = [self.steps, *self.scalars.values()]
        if not all((array == array[0]).all() for array in values):
            return None
        return float(self.steps[0]), tuple(float(array[0]) for array in self.scalars.values())

    def _counter_bytes(self) -> bytes:
        return self.steps.tobytes() + b"".join(array.tobytes() for array in self.scalars.values())

    def _usual(self, works: Sequence[Work], count: float, scalars: tuple[float, ...]) -> list[Kind]:
        """All parameters take part and have taken the same number of steps: one situation for each group."""
        situations = [self.program.situation(works[i].values, count + 1, self.ndim, scalars) for i in self.groups]
        variant, _, after = situations[0]
        if any(other.variant is not variant or other.after != after for other in situations[1:]):
            return self._mixed(works, range(len(self.params)))
        launch = self.usual.get(variant)
        if launch is None:
            launch = self.launch(variant, self.layout, self.table, self.chunks, self.spans, len(self.groups))
            self.usual[variant] = launch
        if self.alike is None:
            self.table[:, ROW_OF_VALUES] = self.usual_rows
        for row, situation in zip(launch.values, situations, strict=True):
            row[: len(situation.row)] = situation.row
        self.pending.append((slice(None), after))
        self.taking_part = self.owned
        return [launch] if len(self.chunks) or self.is_spread else []

    def _mixed(self, works: Sequence[Work], members: Sequence[int]) -> list[Kind]:
        """Some take part, their step counts differ or a gradient needs copying: a row for each situation."""
        self.alike = None
        self.taking_part = [self.owned[i] for i in members]
        rows: dict[Variant, dict[Any, tuple[int, Situation]]] = {}
        owners: dict[Variant, list[int]] = {}
        known: dict[Any, Situation] = {}
        for i in members:
            scalars = tuple(float(values[i]) for values in self.scalars.values())
            case = (self.works[i], float(self.steps[i]) + 1, scalars)
            if case not in known:
                known[case] = self.program.situation(works[case[0]].values, case[1], self.ndim, scalars)
            situation = known[case]
            cases = rows.setdefault(situation.variant, {})
            number, _ = cases.setdefault(case, (len(cases), situation))
            self.table[i, ROW_OF_VALUES] = number
            owners.setdefault(situation.variant, []).append(i)
            self.pending.append((i, situation.after))
        launches: list[Kind] = []
        for variant, cases in rows.items():
            chunks = self.chunks[np.isin(self.chunks[:, 0], owners[variant])]
            if len(chunks) or self.is_spread:
                chunks = chunks[np.argsort(np.isin(chunks[:, 0], list(self.strangers)), kind="stable")]
                strangers = {i: g for i, g in self.strangers.items() if i in owners[variant]}
                spans = self.spans.of(owners[variant])
                launch = self.launch(
                    variant, self.layout, self.table, chunks, spans, len(cases), strangers, self.params
                )
                for number, situation in cases.values():
                    launch.values[number, : len(situation.row)] = situation.row
                launches.append(launch)
        return launches

    def settle(self) -> None:
        """After the kernels: count the step, keep the scalar states, tell autograd what has changed."""
        for which, after in self.pending:
            self.steps[which] += 1
            for values, value in zip(self.scalars.values(), after, strict=True):
                values[which] = value
        if self.pending:
            torch.autograd.graph.increment_version(self.taking_part)
            everyone = self.taking_part is self.owned
            self.alike = (self._counter_bytes(), float(self.steps[0]), self.pending[0][1]) if everyone else None
        self.pending.clear()
        self.strangers.clear()
