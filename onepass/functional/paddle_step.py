"""A step of Paddle's tensors in place: by the CPU's kernels, or by Paddle's own operations."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import paddle

from onepass.functional.core import advance_each, situations
from onepass.functional.paddle_groups import LIBRARY, Member

_STORED = {paddle.float16: "float16", paddle.bfloat16: "bfloat16", paddle.float32: "float32", paddle.float64: "float64"}


class Stepper:
    """What is kept between the steps of one optimizer."""

    def __init__(self) -> None:
        self.case: Any = None
        self.tables: Any = None

    def take(self, members: Sequence[Member]) -> Mapping[str, float]:
        """Step the parameters, each of which has its gradient; return what transforms report."""
        reason = obstacle(members)
        if reason is None:
            try:
                reports = self._by_kernels(members)
            except _cannot_compile() as error:
                reason = str(error)
        if reason is not None:
            say_once(f"{reason}; Paddle's own operations take the step")
            reports = _by_operations(members)
        for member in members:
            member.t += 1
            member.g = None
            if member.master is not None:
                paddle.assign(member.master.astype(member.p.dtype), member.p)
        return reports

    def _by_kernels(self, members: Sequence[Member]) -> Mapping[str, float]:
        from onepass.backends.cpu.plain import Array, Tables

        found = situations([member.item() for member in members])
        tensors = [member.tensors() for member in members]
        case = [
            (m.recipe.program, m.target.shape, [x.dtype for x in row]) for m, row in zip(members, tensors, strict=True)
        ]
        if case != self.case:
            arrays = [
                Array(program, shape, tuple(zip(_names(program), (_STORED[d] for d in dtypes), strict=True)))
                for program, shape, dtypes in case
            ]
            self.case, self.tables = case, Tables(arrays, _pool())
        reports = self.tables.step(found, [[x.data_ptr() for x in row] for row in tensors])
        for member, row, situation in zip(members, tensors, found, strict=True):
            # Whoever saved the parameter for a backward pass is to find out, as after any operation in place.
            row[0]._bump_inplace_version()
            assert member.state is not None
            member.state.update(zip(member.recipe.program.scalars, situation.after, strict=True))
        return reports


def _names(program: Any) -> list[str]:
    return ["p", "g", *(f"state.{key}" for key in program.states)]


@cache
def _pool() -> Any:
    """The threads that Paddle's own operations run on: Intel's OpenMP, which its wheels bring along."""
    from onepass.backends.cpu.plain import Pool

    return Pool(Path(paddle.__file__).parent / "libs" / "libiomp5.so")


@cache
def _has_compiler() -> bool:
    return importlib.util.find_spec("llvmlite") is not None


@cache
def _cannot_compile() -> Any:
    if not _has_compiler():
        return ()
    from onepass.backends.cpu.plain import CannotCompile

    return CannotCompile


def obstacle(members: Sequence[Member]) -> str | None:
    """Why the kernels cannot take these parameters, or None if they can: each tensor one block of memory on the CPU."""
    if not _has_compiler():
        return "the fused kernels need Numba: pip install numba"
    for member in members:
        for x in member.tensors():
            if not x.place.is_cpu_place():
                return f"{member.p.name} is on {x.place}, and the fused kernels are the CPU's"
            if not x.is_contiguous():
                return f"{member.p.name}, its gradient or a state is not contiguous"
    return None


@cache
def say_once(message: str) -> None:
    warnings.warn(f"onepass: {message}", stacklevel=2)


def _by_operations(members: Sequence[Member]) -> Mapping[str, float]:
    results, reports = advance_each([member.item() for member in members], LIBRARY)
    for member, (p, state) in zip(members, results, strict=True):
        paddle.assign(p, member.target)
        assert member.state is not None
        for key, value in state.items():
            old = member.state[key]
            if isinstance(old, float):
                member.state[key] = value
            elif value is not old:
                paddle.assign(value, old)
    return {name: float(value) for name, value in reports.items()}
