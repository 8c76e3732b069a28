"""What all schedules are: values that can be called, joined, scaled and written down."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

KINDS: dict[str, type[Schedule]] = {}


@dataclass(frozen=True)
class Schedule:
    """Base of all schedules: call one with a step, an integer >= 1, for the value of that step, a float."""

    def __init_subclass__(cls) -> None:
        if not cls.__name__.startswith("_"):
            KINDS[cls.__name__] = cls

    def __call__(self, t: int) -> float:
        """The value at step ``t``.

        Raises:
            ValueError: ``t`` is below 1.
        """
        if t < 1:
            raise ValueError(f"steps are counted from 1, and {self!r} was asked for step {t!r}")
        return self._at(t)

    def _at(self, t: int) -> float:
        raise NotImplementedError

    @property
    def length(self) -> int | None:
        """Over how many steps it runs before what follows takes over; None if it never ends."""
        return getattr(self, "steps", None)

    @property
    def landmarks(self) -> tuple[float, ...]:
        """Values that stand for all: the least and the greatest are among them, and one between where it glides."""
        raise NotImplementedError

    def then(self, following: Schedule) -> Schedule:
        """This schedule for as long as it runs, and ``following`` from the next step on, counted from 1 again.

        Raises:
            ValueError: this schedule never ends.
            TypeError: ``following`` is no schedule.

        Example:
            >>> from onepass.schedules import constant, linear
            >>> warm = linear(0.0, 1.0, steps=2).then(constant(1.0))
            >>> [warm(t) for t in (1, 2, 3, 4)]
            [0.0, 0.5, 1.0, 1.0]
        """
        if not isinstance(following, Schedule):
            raise TypeError(f"then takes a schedule, not {following!r}; a value that stays is constant({following!r})")
        if self.length is None:
            raise ValueError(f"{self!r} never ends, so that nothing can follow: give it steps=")
        before = self.parts if isinstance(self, joined) else (self,)
        after = following.parts if isinstance(following, joined) else (following,)
        return joined((*before, *after))

    def __mul__(self, factor: float) -> Schedule:
        """The same schedule with every value multiplied by ``factor``, a finite number: ``0.1 * cosine(...)``."""
        if isinstance(factor, Schedule) or not hasattr(factor, "__float__"):
            return NotImplemented
        return scaled(self, factor)

    __rmul__ = __mul__

    def to_state(self) -> dict[str, Any]:
        """The schedule as a dict of strings, numbers, None, and lists of such dicts; `from_state` reads it.

        Example:
            >>> from onepass.schedules import linear
            >>> linear(0.0, 1.0, steps=5).to_state()
            {'schedule': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 5}
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"schedule": type(self).__name__, **{name: _plain(value) for name, value in values.items()}}

    def _settle(self, name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> None:
        """Make a field a finite float in [low, high], so that checkpoints hold nothing but plain numbers."""
        number = _number(type(self).__name__, name, value)
        if not (math.isfinite(number) and low <= number <= high):
            allowed = f"lie in [{low:g}, {high:g}]" if math.isfinite(low) else "be finite"
            raise ValueError(f"{type(self).__name__}: {name} must {allowed}, and {value!r} does not")
        object.__setattr__(self, name, number)

    def _settle_count(self, name: str, value: Any, low: int = 1) -> None:
        """Make a field an int of ``low`` or more."""
        number = _number(type(self).__name__, name, value)
        if not (math.isfinite(number) and number == int(number) and number >= low):
            raise ValueError(f"{type(self).__name__}: {name} is a count of steps, {low} or more, not {value!r}")
        object.__setattr__(self, name, int(number))


def _number(owner: str, name: str, value: Any) -> float:
    try:
        single = value.item() if hasattr(value, "item") else value
        if isinstance(single, (str, bool)):
            raise TypeError
        return float(single)
    except OverflowError:
        raise ValueError(f"{owner}: {name} is an integer or a fraction too large for a float") from None
    except Exception:
        # What passes for a number can fail in any way of its own.
        raise TypeError(f"{owner}: {name} takes a number, not {value!r}") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.to_state()
    return [part.to_state() for part in value] if isinstance(value, tuple) else value


@dataclass(frozen=True)
class joined(Schedule):
    """Schedules one after the other, as `Schedule.then` makes them; each counts its steps from 1."""

    parts: tuple[Schedule, ...]

    @property
    def length(self) -> int | None:
        lengths = [part.length for part in self.parts]
        return None if lengths[-1] is None else sum(length or 0 for length in lengths)

    def _at(self, t: int) -> float:
        for part in self.parts[:-1]:
            length = part.length or 0
            if t <= length:
                return part._at(t)
            t -= length
        return self.parts[-1]._at(t)

    @property
    def landmarks(self) -> tuple[float, ...]:
        return tuple(mark for part in self.parts for mark in part.landmarks)

    def __repr__(self) -> str:
        first, *rest = map(repr, self.parts)
        return first + "".join(f".then({part})" for part in rest)


@dataclass(frozen=True)
class scaled(Schedule):
    """A schedule times a number, as ``0.1 * cosine(...)`` makes it."""

    of: Schedule
    factor: float

    def __post_init__(self) -> None:
        self._settle("factor", self.factor)

    @property
    def length(self) -> int | None:
        return self.of.length

    def _at(self, t: int) -> float:
        return self.of._at(t) * self.factor

    @property
    def landmarks(self) -> tuple[float, ...]:
        return tuple(mark * self.factor for mark in self.of.landmarks)

    def __repr__(self) -> str:
        return f"({self.factor!r} * {self.of!r})"


def from_state(state: dict[str, Any]) -> Schedule:
    """The schedule that `Schedule.to_state` wrote.

    Raises:
        ValueError: it is nothing of the kind; the message repeats it.

    Example:
        >>> from_state({"schedule": "linear", "start": 0.0, "end": 1.0, "steps": 5})
        linear(start=0.0, end=1.0, steps=5)
    """
    try:
        if not isinstance(state, dict):
            raise TypeError("it is no dict")
        return _read(_frozen(state))
    except (TypeError, KeyError) as error:
        known = ", ".join(sorted(KINDS))
        raise ValueError(f"{state!r} is no schedule's state ({error}); schedules are: {known}") from None


def _frozen(data: Any) -> Any:
    """A state in a form that can be looked up: optimizers read theirs at every step."""
    if isinstance(data, dict):
        return tuple([(name, _frozen(value)) for name, value in data.items()])
    return tuple([_frozen(part) for part in data]) if isinstance(data, (list, tuple)) else data


@cache
def _read(frozen: tuple[tuple[str, Any], ...]) -> Schedule:
    arguments = dict(frozen)
    kind = KINDS[arguments.pop("schedule")]
    if kind is joined:
        arguments["parts"] = tuple(map(_read, arguments["parts"]))
    if kind is scaled:
        arguments["of"] = _read(arguments["of"])
    return kind(**arguments)
