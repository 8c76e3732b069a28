"""The schedules there are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from onepass.schedules.schedule import Schedule


def _cosine(start: float, end: float, fraction: float) -> float:
    # At both ends exactly what was asked for, which (start - end) + end need not be.
    if fraction in (0, 1):
        return end if fraction else start
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


def _linear(start: float, end: float, fraction: float) -> float:
    return start + (end - start) * fraction if fraction < 1 else end


def _sqrt(start: float, end: float, fraction: float) -> float:
    return _linear(start, end, math.sqrt(fraction))


SHAPES = {"cosine": _cosine, "linear": _linear, "sqrt": _sqrt}


def _check_shape(owner: str, shape: Any, known: tuple[str, ...]) -> None:
    if not isinstance(shape, str) or shape not in known:
        raise ValueError(f"{owner}: shape is one of {', '.join(map(repr, known))}, not {shape!r}")


@dataclass(frozen=True)
class constant(Schedule):
    """One value; for ``steps`` steps when something is to follow.

    Args:
        value: what it is, finite.
        steps: >= 1, or None for ever.

    Example:
        >>> staircase = constant(0.1, steps=30).then(constant(0.01, steps=30)).then(constant(0.001))
        >>> staircase(30), staircase(31), staircase(1000)
        (0.1, 0.01, 0.001)
    """

    value: float
    steps: int | None = None

    def __post_init__(self) -> None:
        self._settle("value", self.value)
        if self.steps is not None:
            self._settle_count("steps", self.steps)

    def _at(self, t: int) -> float:
        return self.value

    @property
    def landmarks(self) -> tuple[float, ...]:
        return (self.value,)

    def __repr__(self) -> str:
        return f"constant({self.value!r}{'' if self.steps is None else f', steps={self.steps}'})"


@dataclass(frozen=True)
class _Glide(Schedule):
    start: float
    end: float
    steps: int

    shape: ClassVar[str]

    def __post_init__(self) -> None:
        self._settle("start", self.start)
        self._settle("end", self.end)
        self._settle_count("steps", self.steps)

    def _at(self, t: int) -> float:
        return SHAPES[self.shape](self.start, self.end, min((t - 1) / self.steps, 1.0))

    @property
    def landmarks(self) -> tuple[float, ...]:
        return (self.start, self(2), self.end)


@dataclass(frozen=True)
class linear(_Glide):
    """A straight line from ``start`` to ``end``: torch's ``LinearLR``, ``steps`` being its ``total_iters``.

    Args:
        start: the value at step 1, finite.
        end: the value from step ``steps + 1`` on, finite.
        steps: >= 1.

    A warm-up that starts from 0 spends its first step at 0; ``linear(peak / (n + 1), peak, steps=n)`` does not.
    """

    shape: ClassVar[str] = "linear"


@dataclass(frozen=True)
class cosine(_Glide):
    """Half a cosine from ``start`` to ``end``: torch's ``CosineAnnealingLR``, ``steps`` being its ``T_max``.

    It keeps its end afterwards, where torch's climbs again.

    Args:
        start: the value at step 1, finite.
        end: the value from step ``steps + 1`` on, finite.
        steps: >= 1.

    References:
        Loshchilov & Hutter, SGDR, arXiv:1608.03983, without the restarts.
    """

    shape: ClassVar[str] = "cosine"


@dataclass(frozen=True)
class step(Schedule):
    """A staircase: multiplied by ``gamma`` every ``every`` steps, as torch's ``StepLR`` does.

    Stairs of unequal width are constants joined with `Schedule.then`.

    Args:
        start: the value at step 1, finite.
        every: >= 1; the first lower value comes at step ``every + 1``.
        gamma: in [0, 1].
        steps: >= 1, or None for ever.
    """

    start: float
    every: int
    gamma: float = 0.1
    steps: int | None = None

    def __post_init__(self) -> None:
        self._settle("start", self.start)
        self._settle_count("every", self.every)
        self._settle("gamma", self.gamma, 0.0, 1.0)
        if self.steps is not None:
            self._settle_count("steps", self.steps)

    def _at(self, t: int) -> float:
        last = t if self.steps is None else min(t, self.steps)
        return self.start * self.gamma ** ((last - 1) // self.every)

    @property
    def landmarks(self) -> tuple[float, ...]:
        lowest = 0.0 if self.steps is None and self.gamma < 1 else self._at(self.steps or 1)
        return (self.start, self._at(self.every + 1), lowest)


@dataclass(frozen=True)
class one_cycle(Schedule):
    """Up to ``peak`` and down again, the super-convergence recipe: torch's ``OneCycleLR`` of two phases.

    Args:
        peak: the value in the middle, finite: torch's ``max_lr``.
        steps: the length of the run, at whose last step the end is reached: torch's ``total_steps``.
        start: the value at step 1; None for ``peak / 25``.
        end: the value at the last step and after it; None for ``start / 10_000``.
        rise: the share of the steps before the peak, below 1: torch's ``pct_start``. ``rise * steps`` must exceed 1.
        shape: ``"cosine"`` or ``"linear"``.

    Momentum goes the other way: ``one_cycle(0.85, steps, start=0.95, end=0.95)``.

    References:
        Smith & Topin, Super-convergence, arXiv:1708.07120.
    """

    peak: float
    steps: int
    start: Any = None
    end: Any = None
    rise: float = 0.3
    shape: str = "cosine"

    def __post_init__(self) -> None:
        self._settle("peak", self.peak)
        self._settle_count("steps", self.steps)
        self._settle("start", self.peak / 25 if self.start is None else self.start)
        start: Any = self.start
        self._settle("end", start / 1e4 if self.end is None else self.end)
        self._settle("rise", self.rise, 0.0, 1.0)
        if not (self.rise * self.steps > 1 and self.rise < 1):
            raise ValueError(
                f"one_cycle: rise={self.rise:g} of {self.steps} steps leaves no step to rise in or none to fall in; "
                "give a rise below 1 and above 1 / steps"
            )
        _check_shape("one_cycle", self.shape, ("cosine", "linear"))

    def _at(self, t: int) -> float:
        shape = SHAPES[self.shape]
        # Torch's phases end between steps where rise * steps is no integer.
        k, top, last = t - 1, self.rise * self.steps - 1, self.steps - 1
        if k <= top:
            return shape(self.start, self.peak, k / top)
        return shape(self.peak, self.end, min((k - top) / (last - top), 1.0))

    @property
    def landmarks(self) -> tuple[float, ...]:
        return (self.start, self(2), self.peak, self.end)


@dataclass(frozen=True)
class warmup_stable_decay(Schedule):
    """A straight rise, a plateau, and a descent at the end.

    Args:
        peak: the value of the plateau, finite.
        steps: the length of the run.
        warmup: >= 0; steps before the plateau. The first has ``peak / (warmup + 1)``, not 0.
        decay: >= 1; steps of descent, the last of the run: the first of them has ``peak``, the step after the run
            has ``end``. With ``warmup`` they are ``steps`` at most.
        end: the value after the run, finite.
        shape: of the descent: ``"linear"``, ``"cosine"``, or ``"sqrt"`` for 1 minus the square root, which the paper
            found best.

    References:
        Hu et al., MiniCPM, arXiv:2404.06395. Hägele et al., arXiv:2405.18392.
    """

    peak: float
    steps: int
    warmup: int
    decay: int
    end: float = 0.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        self._settle("peak", self.peak)
        self._settle_count("steps", self.steps)
        self._settle_count("warmup", self.warmup, 0)
        self._settle_count("decay", self.decay)
        self._settle("end", self.end)
        if self.warmup + self.decay > self.steps:
            raise ValueError(
                f"warmup_stable_decay: warmup={self.warmup} and decay={self.decay} are more than steps={self.steps}"
            )
        _check_shape("warmup_stable_decay", self.shape, ("linear", "cosine", "sqrt"))

    def _at(self, t: int) -> float:
        plateau_ends = self.steps - self.decay
        if t <= self.warmup:
            return self.peak * t / (self.warmup + 1)
        fraction = (t - 1 - plateau_ends) / self.decay
        return SHAPES[self.shape](self.peak, self.end, min(max(fraction, 0.0), 1.0))

    @property
    def landmarks(self) -> tuple[float, ...]:
        return (self._at(1), self.peak, self._at(self.steps), self.end)
