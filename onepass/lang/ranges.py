"""Which values a hyperparameter may take, written as an interval: "[0, 1)"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, cast

_INTERVAL = re.compile(r"\s*([\[(])\s*([^,\s]+)\s*,\s*([^,\s]+)\s*([\])])\s*(integer)?\s*")


@dataclass(frozen=True)
class Range:
    """An interval of real numbers, or of integers: ``Range.parse("[1, inf) integer")``."""

    low: float
    high: float
    low_open: bool
    high_open: bool
    integer: bool = False

    @classmethod
    def parse(cls, text: str) -> Range:
        match = _INTERVAL.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no interval: write it like '[0, 1)' or '[1, inf) integer'")
        left, low, high, right, integer = match.groups()
        return cls(float(low), float(high), left == "(", right == ")", integer is not None)

    def __contains__(self, x: float) -> bool:
        above = x > self.low if self.low_open else x >= self.low
        below = x < self.high if self.high_open else x <= self.high
        return above and below and (not self.integer or x == math.floor(x))

    def __str__(self) -> str:
        kind = "an integer in " if self.integer else ""
        return f"{kind}{'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


# A hyperparameter of one of these names means the same in every rule; a rule says otherwise with ``ranges=``.
COMMON = {
    "lr": Range.parse("[0, inf)"),
    "betas": Range.parse("[0, 1)"),
    "eps": Range.parse("[0, inf)"),
    "weight_decay": Range.parse("[0, inf)"),
    "momentum": Range.parse("[0, inf)"),
}


def check(owner: str, name: str, value: Any, default: Any, allowed: Range | None) -> None:
    """Raise unless ``value`` has the form of ``default`` (a number, or a tuple of them) and lies in the range.

    Anything that ``float()`` takes is a number here (a tensor of one element too), except a string: ``"1e-4"``, which
    is what YAML makes of 1e-4, would fail much later, or silently. A bool counts as one only where the default is one.
    A default of None admits None, for "not given". A schedule has ``landmarks``, the numbers that it will come to.
    A tensor that requires a gradient is refused: it would wait for one in vain.
    """
    if default is None and value is None:
        return
    if isinstance(default, tuple):
        expected = cast("tuple[Any, ...]", default)
        if not isinstance(value, (tuple, list)) or len(value) != len(expected):  # pyright: ignore[reportUnknownArgumentType]
            raise ValueError(f"{owner}: {name} takes {len(expected)} numbers, such as {default}, not {value!r}")
        for i in range(len(expected)):
            check(owner, f"{name}[{i}]", value[i], expected[i], allowed)  # pyright: ignore[reportUnknownArgumentType]
        return
    landmarks = getattr(value, "landmarks", None)
    if landmarks is not None:
        for landmark in landmarks:
            check(owner, name, landmark, default, allowed)
        return
    if getattr(value, "requires_grad", False):
        raise ValueError(f"{owner}: {name} requires a gradient, and no step gives it one: pass {name}.detach()")
    try:
        # An array of one element has no other way that neither warns nor depends on NumPy's version.
        single = value.item() if hasattr(value, "item") else value
        if isinstance(single, str) or (isinstance(single, bool) and not isinstance(default, bool)):
            raise TypeError
        number = float(single)
    except OverflowError:
        raise ValueError(f"{owner}: {name} is an integer or a fraction too large for a float") from None
    except Exception:
        # What passes for a number can fail in any way of its own.
        raise TypeError(f"{owner}: {name} takes a number, not {value!r}{_remedy(value)}") from None
    if allowed is not None and number not in allowed:
        raise ValueError(f"{owner}: {name} must lie in {allowed}, and {number:g} does not")


def _remedy(value: Any) -> str:
    try:
        return f"; write {float(value):g} without the quotes" if isinstance(value, str) else ""
    except ValueError:
        return ""
