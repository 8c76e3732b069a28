"""Golden trajectories: what the float64 reference makes of every rule, form of decay and some transforms.

``trajectories.npz`` holds them; ``python -m golden.make``, run in ``tests``, made it. Reading it needs NumPy alone, so
that every framework can be held against the same numbers. The gradients are given, and do not follow from the
parameters: an error is not amplified from step to step by anything but the rule itself. Start and gradients are
float32 numbers, so that a step in float32 differs by its own rounding only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import onepass
from onepass.lang import Applied

FILE = Path(__file__).parent / "trajectories.npz"

SHAPES = ((2, 3), (3,), ())
STEPS = 12
# RAdam takes its adaptive branch from step 6 on, and Lookahead synchronises every third.
RECORDED = (1, 2, 6, 7, 12)
LR = 0.05
WEIGHT_DECAY = 0.1

RULES = (
    "adadelta", "adagrad", "adam", "adamax", "adamw", "amsgrad", "centered_rmsprop", "momentum", "nadam", "nesterov",
    "radam", "ranger", "rmsprop", "sgd", "yogi",
)  # fmt: skip

DECAYS = ("none", "l2", "decoupled", "independent", "cautious")

TRANSFORMS: Mapping[str, tuple[Applied, ...]] = {
    "plain": (),
    "average": (onepass.clip_norm(1.0), onepass.average(0.9)),
    "lookahead": (onepass.clip_norm(1.0), onepass.lookahead(k=3, alpha=0.5)),
    "cautious": (onepass.clip_value(0.5), onepass.centralize(), onepass.cautious()),
    "mask": (onepass.clip_adaptive(0.1), onepass.cautious_mask()),
}


@dataclass(frozen=True)
class Case:
    """A trajectory: ``rule`` as in `onepass.functional.list_rules`, a name of ``DECAYS`` and one of ``TRANSFORMS``."""

    rule: str
    decay: str
    changed: str

    def __str__(self) -> str:
        return f"{self.rule}-{self.decay}-{self.changed}"

    @property
    def transforms(self) -> list[Applied]:
        return list(TRANSFORMS[self.changed])

    @property
    def weight_decay(self) -> Any:
        return 0.0 if self.decay == "none" else onepass.decay.FORMS[self.decay](WEIGHT_DECAY)

    @property
    def is_scheduled(self) -> bool:
        """Whether the learning rate falls: independent decay follows it."""
        return self.decay == "independent"

    def lr(self, t: int) -> float:
        """The learning rate of step ``t`` = 1, 2, ...: constant, or a line that would reach 0 after 24 steps."""
        return LR * (1 - (t - 1) / 24) if self.is_scheduled else LR


def _cases() -> Iterator[Case]:
    for rule in RULES:
        for decay in DECAYS:
            yield Case(rule, decay, "plain")
            # Ranger looks ahead by itself.
            yield Case(rule, decay, "average" if rule == "ranger" else "lookahead")
        for changed in ("average", "cautious", "mask"):
            if (rule, changed) != ("ranger", "average"):
                yield Case(rule, "none", changed)


CASES = tuple(_cases())


@dataclass(frozen=True)
class Golden:
    """A case's trajectory in float64.

    Attributes:
        start: the parameters before the first step.
        gradients: for each step, the gradients.
        params: for each step of ``RECORDED``, the parameters after it.
        states: after the last step, for each checkpoint key one array for each parameter, all of one value where the
            state is a number.
    """

    start: Sequence[np.ndarray]
    gradients: Sequence[Sequence[np.ndarray]]
    params: Mapping[int, Sequence[np.ndarray]]
    states: Mapping[str, Sequence[np.ndarray]]


@cache
def _file() -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """The rows of each case, and the keys of the states that follow the parameters in them."""
    with np.load(FILE) as file:
        names = [name.partition(":") for name in file.files]
        return {name: file[name + colon + keys] for name, colon, keys in names}, {
            name: keys.split(",") if keys else [] for name, _, keys in names
        }


def split(flat: np.ndarray) -> list[np.ndarray]:
    """The arrays of ``SHAPES`` that were laid end to end."""
    ends = np.cumsum([int(np.prod(shape)) for shape in SHAPES])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), SHAPES, strict=True)]


def load(case: Case) -> Golden:
    """The trajectory of a case."""
    rows, keys = _file()
    found = [split(row) for row in rows[str(case)]]
    return Golden(
        split(rows["start"]),
        [split(row) for row in rows["gradients"]],
        dict(zip(RECORDED, found, strict=False)),
        dict(zip(keys[str(case)], found[len(RECORDED) :], strict=True)),
    )


def error(ours: Sequence[Any], theirs: Sequence[np.ndarray]) -> float:
    """The largest difference in any array, relative to the largest value in all of them."""
    scale = max(float(np.max(np.abs(b))) for b in theirs)
    return max(float(np.max(np.abs(np.asarray(a, np.float64) - b))) for a, b in zip(ours, theirs, strict=True)) / scale


def bound(dtype: str) -> float:
    """How far a trajectory in this type may be off, as `error` counts.

    A step makes some thirty roundings of a value, each of half a unit in the last place, and its states carry them on
    into the next. Nothing here magnifies them: the gradients are given. The NumPy form stays within 2 units.
    """
    return STEPS * 30 / 2 * float(np.finfo(dtype).eps)
