"""Which backend serves which tensors, and why."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from onepass.backends import reference
from onepass.backends.gradients import check_layouts
from onepass.compiler import Work

if TYPE_CHECKING:
    from onepass.backends.cpu.session import Session

BACKENDS = ("cpu", "reference")


def choose(backend: str | None) -> str:
    """The backend to use: as given, else as the environment variable ``ONEPASS_BACKEND`` says, else the fastest.

    Raises:
        ValueError: there is no backend of that name.
    """
    name = backend or os.environ.get("ONEPASS_BACKEND") or "cpu"
    if name not in BACKENDS:
        source = "backend=" if backend else "ONEPASS_BACKEND="
        raise ValueError(f"{source}{name!r} is no backend: choose one of {', '.join(BACKENDS)}")
    return name


@cache
def missing() -> str | None:
    """Why there can be no compiled kernels here, or None if there can."""
    absent = [name for name in ("numba", "llvmlite") if importlib.util.find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} cannot be imported: pip install numba"
    try:
        importlib.import_module("llvmlite.binding")
    except Exception as error:
        return f"llvmlite does not work here ({error}): pip install --force-reinstall numba"
    return None


class Runner:
    """Takes an optimizer's steps: compiled kernels where they can serve, the reference elsewhere, saying so once."""

    def __init__(self, backend: str | None = None):
        self.backend = choose(backend)
        self.insists = backend is not None
        self.session: Session | None = None
        if self.backend == "cpu":
            reason = missing()
            if reason:
                self._do_without(reason)
            else:
                from onepass.backends.cpu.session import Session

                self.session = Session()

    def _do_without(self, reason: str) -> None:
        if self.insists:
            raise RuntimeError(f"backend='cpu' cannot serve: {reason}")
        self.session = None
        _say_once(f"the reference runs, not a compiled kernel: {reason}")

    def step(
        self, works: Sequence[Work], states: Mapping[Any, Any], *, differentiable: bool = False
    ) -> Mapping[str, float]:
        """Take one step of all parameters that have a gradient.

        Args:
            works: the parameter groups.
            states: the optimizer's states, by parameter.
            differentiable: let autograd follow the step, through the reference.

        Returns:
            What transforms report of the step; nothing if no parameter has a gradient.

        Raises:
            RuntimeError: a gradient is sparse where that cannot be, or ``backend="cpu"`` was asked for and nothing can
                be compiled. Nothing has been changed then.
        """
        if self.session is not None and not differentiable:
            from onepass.backends.cpu.machine import CannotCompile

            try:
                return self._run_kernels(self.session, works, states)
            except CannotCompile as error:
                self._do_without(str(error))
        for work in works:
            check_layouts(work.program, work.params)
        return reference.step(works, differentiable=differentiable)

    def _run_kernels(self, session: Session, works: Sequence[Work], states: Mapping[Any, Any]) -> Mapping[str, float]:
        rest = session.gather(works, states)
        for work in rest:
            check_layouts(work.program, work.params)
        reasons = session.why()
        if reasons:
            _say_once(f"the reference runs, not a compiled kernel: {'; '.join(reasons)}")
        reports = session.run(works)
        return {**reference.step(rest), **reports} if rest else reports


@cache
def _say_once(message: str) -> None:
    warnings.warn(f"onepass: {message}", stacklevel=6)
