"""Which backend serves which tensors, and why."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from onepass.backends import reference
from onepass.backends.gradients import check_layouts
from onepass.backends.tables.cache import CannotCompile
from onepass.compiler import Work

if TYPE_CHECKING:
    from onepass.backends.tables.session import Session

BACKENDS = ("cpu", "triton", "reference")
_PACKAGES = {"cpu": ("numba", "llvmlite"), "triton": ("triton",)}
_REMEDIES = {"cpu": "pip install numba", "triton": "pip install onepass[gpu]"}
# What torch calls the devices that Triton compiles for; those of AMD are "cuda" too.
_GPUS = ("cuda", "xpu")


def choose(backend: str | None) -> str | None:
    """The backend to use: as given, else as the environment variable ``ONEPASS_BACKEND`` says.

    Returns:
        Its name, or None for the fastest one for each tensor.

    Raises:
        ValueError: there is no backend of that name.
    """
    name = backend or os.environ.get("ONEPASS_BACKEND") or None
    if name is not None and name not in BACKENDS:
        source = "backend=" if backend else "ONEPASS_BACKEND="
        raise ValueError(f"{source}{name!r} is no backend: choose one of {', '.join(BACKENDS)}")
    return name


@cache
def missing(backend: str) -> str | None:
    """Why a backend can compile no kernels here, or None if it can."""
    absent = [name for name in _PACKAGES[backend] if importlib.util.find_spec(name) is None]
    if absent:
        return f"{' and '.join(absent)} cannot be imported: {_REMEDIES[backend]}"
    module = "llvmlite.binding" if backend == "cpu" else "onepass.backends.triton.words"
    try:
        importlib.import_module(module)
    except Exception as error:
        package = module.partition(".")[0] if backend == "cpu" else "triton"
        return f"{package} does not work here ({error}): pip install --force-reinstall {_REMEDIES[backend][12:]}"
    return None


def interprets() -> bool:
    """Whether Triton's kernels run in its interpreter, on CPU tensors."""
    from onepass.backends.triton import words

    return words.INTERPRETED


class Runner:
    """Takes an optimizer's steps: compiled kernels where they can serve, the reference elsewhere, saying so once."""

    def __init__(self, backend: str | None = None):
        self.backend = choose(backend)
        self.insists = backend is not None
        self._sessions: dict[str, Session] = {}
        self._without: dict[str, str] = {}
        # The session that took everything in the last step, if one did: most likely it will again.
        self._alone: Session | None = None
        if self.backend in _PACKAGES:
            self._session(self.backend)

    @property
    def session(self) -> Session | None:
        """The session of the kernels in use; None if there is none."""
        return next(iter(self._sessions.values()), None)

    def _session(self, name: str) -> Session | None:
        """The session of a backend of compiled kernels, made now if need be; None where it cannot work."""
        if name in self._sessions or name in self._without:
            return self._sessions.get(name)
        reason = missing(name)
        if reason:
            self._do_without(name, reason)
        elif name == "cpu":
            from onepass.backends.cpu.session import Session

            self._sessions[name] = Session()
        else:
            from onepass.backends.triton.session import Session

            self._sessions[name] = Session()
        return self._sessions.get(name)

    def _do_without(self, name: str, reason: str) -> None:
        if self.insists:
            raise RuntimeError(f"backend={name!r} cannot serve: {reason}")
        self._sessions.pop(name, None)
        self._alone = None
        self._without[name] = reason
        _say_once(f"the reference runs, not a compiled kernel: {reason}")

    def reads_signals(self, p: torch.Tensor) -> bool:
        """Whether the kernels for a parameter read tensors that say how to step, so that the host need not know."""
        return self._serving(p) == "triton" and self._session("triton") is not None

    def skipped_steps(self) -> int:
        """How many steps kernels skipped by themselves for a gradient that was not finite. Waits for the device."""
        session: Any = self._sessions.get("triton")
        return session.skipped_steps() if session is not None else 0

    def step(
        self,
        works: Sequence[Work],
        states: Mapping[Any, Any],
        *,
        differentiable: bool = False,
        capturable: bool = False,
        skip: torch.Tensor | None = None,
    ) -> Mapping[str, float]:
        """Take one step of all parameters that have a gradient.

        Args:
            works: the parameter groups.
            states: the optimizer's states, by parameter.
            differentiable: let autograd follow the step, through the reference.
            capturable: only what a CUDA graph can replay will do.
            skip: where kernels read signals (see `reads_signals`), not 0 if the step is to be skipped.

        Returns:
            What transforms report of the step; nothing if no parameter has a gradient.

        Raises:
            RuntimeError: a gradient is sparse where that cannot be, a backend was asked for that can compile nothing
                here, or a step that must be capturable is not. Nothing has been changed then.
        """
        if not (self._alone is None or differentiable or capturable or skip is not None):
            found = self._step_alone(self._alone, works, states)
            if found is not None:
                return found
        taken, rest = ([], works) if differentiable else self._gather(works, states)
        for work in rest:
            check_layouts(work.program, work.params)
        if capturable or skip is not None:
            elsewhere = [*rest, *(work for each in taken if each.name != "triton" for work in each.works())]
            elsewhere = [p for work in elsewhere for p in work.params if p.grad is not None]
            if capturable and elsewhere:
                raise RuntimeError(_not_capturable(elsewhere[0]))
            if skip is not None and elsewhere:
                if float(skip) > 0:
                    return {}
                skip = None
        self._alone = taken[0].session if len(taken) == 1 and not rest else None
        reports: Mapping[str, float] = {}
        for each in taken:
            try:
                reports = each.run(skip) or reports
            except CannotCompile as error:
                self._do_without(each.name, str(error))
                rest = [*rest, *each.works()]
        others = reference.step(_with_numbers(rest), differentiable=differentiable) if rest else {}
        return {**others, **reports} if others else reports

    def _step_alone(
        self, session: Session, works: Sequence[Work], states: Mapping[Any, Any]
    ) -> Mapping[str, float] | None:
        """A step by one session, or None if it cannot take everything; nothing is changed then."""
        if session.gather(works, states):
            return None
        try:
            return session.run(works)
        except CannotCompile:
            return None

    def _gather(self, works: Sequence[Work], states: Mapping[Any, Any]) -> tuple[list[_Taken], Sequence[Work]]:
        """What each session takes, and what none does; nothing is changed yet."""
        taken: list[_Taken] = []
        rest = works
        reasons: list[str] = []
        # The backend of the first parameter serves all of them most likely.
        primary = next((self._serving(p) for work in works for p in work.params), None)
        for name in () if primary is None else (primary, "triton" if primary == "cpu" else "cpu"):
            if name != primary and (self.backend or not any(_backend_of(p) == name for w in rest for p in w.params)):
                break
            session = self._session(name)
            # Who has heard that there is no compiler need not hear whom else it concerns.
            reasons = []
            if session is not None:
                given, rest = rest, session.gather(rest, states)
                reasons = session.why()
                taken.append(_Taken(name, session, given, rest))
            if not rest:
                break
        if reasons:
            _say_once(f"the reference runs, not a compiled kernel: {'; '.join(reasons)}")
        return taken, rest

    def _serving(self, p: torch.Tensor) -> str | None:
        """The backend that is to serve a parameter; None for the reference."""
        if self.backend is not None:
            return self.backend if self.backend in _PACKAGES else None
        return _backend_of(p)


@dataclass
class _Taken:
    """A session, what it was asked to take and what it left."""

    name: str
    session: Any
    given: Sequence[Work]
    left: Sequence[Work]

    def works(self) -> Sequence[Work]:
        """What it takes."""
        left = {id(p) for work in self.left for p in work.params}
        return [replace(work, params=[p for p in work.params if id(p) not in left]) for work in self.given]

    def run(self, skip: torch.Tensor | None) -> Mapping[str, float]:
        if self.name == "triton":
            return self.session.run(self.given, skip)
        return self.session.run(_with_numbers(self.given))


def _backend_of(p: torch.Tensor) -> str:
    return "triton" if p.device.type in _GPUS else "cpu"


def _with_numbers(works: Sequence[Work]) -> Sequence[Work]:
    """The same with hyperparameters that are tensors on a device read from it."""
    if not any(work.counts_on_device for work in works):
        return works
    return [replace(work, values={name: float(value) for name, value in work.values.items()}) for work in works]


def _not_capturable(p: torch.Tensor) -> str:
    where = f"a parameter is on {p.device}"
    remedy = "step on a GPU, or leave it False"
    if p.device.type in _GPUS:
        where, remedy = f"no kernel serves a parameter on {p.device}", f"{_REMEDIES['triton']}, or leave it False"
    return f"capturable=True needs kernels that a CUDA graph can replay, and {where}: {remedy}"


@cache
def _say_once(message: str) -> None:
    warnings.warn(f"onepass: {message}", stacklevel=6)
