"""Which backend serves which tensors, and why."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cache

from onepass.backends import reference
from onepass.backends.gradients import refuse_sparse
from onepass.compiler import Work

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
    return f"{' and '.join(absent)} cannot be imported: pip install numba" if absent else None


class Runner:
    """Takes an optimizer's steps: compiled kernels where they can serve, the reference elsewhere, saying so once."""

    def __init__(self, backend: str | None = None):
        self.backend = choose(backend)
        self.session = None
        if self.backend == "cpu":
            if missing():
                _say_once(f"no compiled kernels: {missing()}")
            else:
                from onepass.backends.cpu.session import Session

                self.session = Session()

    def step(self, works: Sequence[Work], *, differentiable: bool = False) -> Mapping[str, float]:
        """Take one step of all parameters that have a gradient.

        Returns:
            What transforms report of the step; nothing if no parameter has a gradient.

        Raises:
            RuntimeError: a gradient is sparse; nothing has been changed then.
        """
        if self.session is None or differentiable:
            for work in works:
                refuse_sparse(work.program.name, work.params)
            return reference.step(works, differentiable=differentiable)
        rest = self.session.gather(works)
        if self.session.why():
            for work in rest:
                refuse_sparse(work.program.name, work.params)
            _say_once(f"the reference runs, not a compiled kernel: {'; '.join(self.session.why())}")
        reports = self.session.run(works)
        return {**reference.step(rest), **reports} if self.session.why() else reports


@cache
def _say_once(message: str) -> None:
    warnings.warn(f"onepass: {message}", stacklevel=6)
