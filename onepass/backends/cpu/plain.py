"""Steps of arrays that are known by their addresses alone: the CPU's kernels for frameworks other than torch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onepass.backends.cpu.launch import Launch, finish
from onepass.backends.cpu.machine import CannotCompile
from onepass.backends.tables.launch import Spans, cut, rows_matter, run_reductions
from onepass.backends.tables.writing import FIRST_ADDRESS, ROW_LENGTH, ROW_OF_VALUES, layout
from onepass.compiler import Program, Situation

__all__ = ["Array", "CannotCompile", "Pool", "Tables"]

# Below this many elements a step is over before a second thread has woken up.
ALONE = 32768


class Array(NamedTuple):
    """A parameter to be stepped, with its gradient and states, each a block of memory of the parameter's shape.

    Attributes:
        program: what to compute.
        shape: the parameter's shape.
        storage: the types in which ``p``, ``g`` and each ``state.KEY`` are stored, in this order.
    """

    program: Program
    shape: tuple[int, ...]
    storage: tuple[tuple[str, str], ...]


class Pool:
    """The threads of an OpenMP library that a framework has loaded; without one, the calling thread.

    Args:
        path: the library.
    """

    def __init__(self, path: Path | None = None):
        self._pid = os.getpid()
        self._parallel: Any = None
        if path is None or not hasattr(os, "RTLD_NOLOAD"):
            return
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD)
            self._parallel, self._threads = library.GOMP_parallel, library.omp_get_max_threads
        except (OSError, AttributeError):
            return
        self._parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._parallel.restype = None

    def threads(self) -> int:
        """How many threads share a step; those of an OpenMP pool do not survive a fork."""
        return self._threads() if self._parallel is not None and os.getpid() == self._pid else 1

    def run(self, function: int, job: int, elements: int) -> None:
        """Call the kernel at an address with its job, on as many threads as its elements are worth."""
        threads = self.threads() if elements > ALONE else 1
        if threads > 1:
            self._parallel(function, job, threads, 0)
        else:
            _callable(function)(job)


@cache
def _callable(function: int) -> Any:
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(function)


class Tables:
    """Arrays that are stepped together, and the tables by which kernels find them.

    Args:
        arrays: all that take part.
        pool: whose threads do the work.
    """

    def __init__(self, arrays: Sequence[Array], pool: Pool):
        self.arrays, self.pool = list(arrays), pool
        self._launches: dict[tuple[int, ...], list[tuple[Launch, list[int]]]] = {}

    def step(self, situations: Sequence[Situation], addresses: Sequence[Sequence[int]]) -> Mapping[str, float]:
        """Take a step in place.

        Args:
            situations: what it is for each array.
            addresses: for each array where ``p``, ``g`` and each state lie now.

        Returns:
            What transforms report.

        Raises:
            CannotCompile: Numba does not work here. Nothing has been written then.
        """
        case = tuple(id(situation.variant) for situation in situations)
        if case not in self._launches:
            self._launches[case] = self._made(situations)
        launches = self._launches[case]
        for launch, members in launches:
            launch.table[:, FIRST_ADDRESS:] = [addresses[i] for i in members]
            rows: dict[int, int] = {}
            for n, i in enumerate(members):
                situation = situations[i]
                row = rows.get(id(situation))
                if row is None:
                    row = rows[id(situation)] = len(rows)
                    launch.values[row, : len(situation.row)] = situation.row
                launch.table[n, ROW_OF_VALUES] = row
        every = [launch for launch, _ in launches]
        run_reductions(every, self._run_phase, finish)
        reports = every[0].reports() if every else {}
        self._run([(launch, len(launch.rounds)) for launch in every])
        return reports

    def _made(self, situations: Sequence[Situation]) -> list[tuple[Launch, list[int]]]:
        groups: dict[Any, list[int]] = {}
        for i, (array, situation) in enumerate(zip(self.arrays, situations, strict=True)):
            groups.setdefault((id(situation.variant), array.storage), []).append(i)
        return [(self._launch(situations[members[0]], members), members) for members in groups.values()]

    def _launch(self, situation: Situation, members: Sequence[int]) -> Launch:
        arrays = [self.arrays[i] for i in members]
        arranged = layout(dict(arrays[0].storage))
        counts = [prod(array.shape) for array in arrays]
        lengths = [prod(array.shape[1:]) if array.shape else 1 for array in arrays]
        rows = rows_matter(arrays[0].program)
        chunks = cut(counts, [length if rows and count else 1 for count, length in zip(counts, lengths, strict=True)])
        table = np.zeros((len(arrays), arranged.columns), dtype=np.int64)
        table[:, ROW_LENGTH] = [max(1, length) for length in lengths]
        spans = Spans(np.array(counts, dtype=np.int64), [()] * len(arrays))
        return Launch(situation.variant, arranged, table, chunks, spans, len(arrays))

    def _run_phase(self, jobs: Sequence[tuple[Launch, int]]) -> None:
        self._run(jobs)
        for launch, phase in jobs:
            launch.learn(launch.sums(phase))

    def _run(self, jobs: Sequence[tuple[Launch, int]]) -> None:
        for launch, phase in jobs:
            launch.aim(phase, 0, launch.own)
            if launch.own:
                self.pool.run(launch.kernels[phase], launch.job_address, launch.elements)
