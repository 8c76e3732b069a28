"""What a run is asked and what it answers, as plain data that goes to JSON and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median_low
from typing import Any

from onepass.study.task import BatchSize

Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Then:
    """The optimizer that takes over once the first stops improving.

    It starts from the best weights seen so far, after `patience` epochs without a lower validation loss, and has the
    rest of the epochs; the schedule starts anew and spans them.
    """

    optimizer: str
    lr: float | None = None
    weight_decay: float | None = None
    options: Options = ()
    patience: int = 3


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on besides its task: the same settings give the same numbers.

    Args:
        optimizer: a name that `onepass.create` knows.
        epochs: passes over the training data.
        seed: where the weights, the order of the examples and dropout all come from, in [0, 2³²).
        lr, weight_decay: None: the task's, if the optimizer is the task's own default, else the class's.
        schedule: "constant", "step", "cosine" or "onecycle".
        warmup: the share of the steps, in [0, 1), over which the learning rate rises; None: the schedule's own
            (none, or 0.3 for "onecycle").
        batch_size: examples in a batch, or "full"; None: the task's.
        device: as torch names it.
        threads: of torch on the CPU; None: as many as torch takes of itself. The last bits can depend on it.
        options: further hyperparameters of the optimizer, in name order.
        then: the optimizer that takes over, if any.
    """

    optimizer: str
    epochs: int
    seed: int = 0
    lr: float | None = None
    weight_decay: float | None = None
    schedule: str = "constant"
    warmup: float | None = None
    batch_size: BatchSize | None = None
    device: str = "cpu"
    threads: int | None = None
    options: Options = ()
    then: Then | None = None

    def to_json(self) -> dict[str, Any]:
        """The settings as plain JSON types: options become an object, a tuple in them a list."""
        return _plain({**asdict(self), **_options_as_objects(self)})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Settings:
        """The settings that `to_json` wrote."""
        then = data.get("then")
        return cls(
            **{
                **data,
                "options": _options(data.get("options", {})),
                "then": Then(**{**then, "options": _options(then.get("options", {}))}) if then else None,
            }
        )


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data, as it stood at its end.

    `step` counts optimizer steps since the start; `seconds` is the training time since the start, validation and
    checkpoints not counted, and `optimizer_seconds` the part of it inside `optimizer.step()`: both count the moments in
    which a kernel is compiled, mostly in the first epoch. `train_loss` is the mean
    over the epoch's examples, each under the weights it met; the validation figures are under the weights at the end.
    `lr` is that of the epoch's last step.
    """

    epoch: int
    step: int
    seconds: float
    optimizer_seconds: float
    train_loss: float
    validation_loss: float
    validation_metric: float
    lr: float
    optimizer: str


@dataclass(frozen=True)
class Outcome:
    """What came of a run: its finished epochs and, unless it diverged, the loss and metric on the test data.

    A run diverges when a training or validation loss is not finite. It stops there: `diverged_at` is the step, counted
    from 1, whose loss it was (for a validation loss, the last step taken) and `diverged_lr` the learning rate then.
    """

    history: tuple[Epoch, ...]
    test_loss: float | None
    test_metric: float | None
    diverged: bool
    diverged_at: int | None
    diverged_lr: float | None
    steps: int
    seconds: float
    optimizer_seconds: float

    @property
    def step_seconds(self) -> float:
        """What one optimizer step took: the mean over an epoch's steps, and of these the median over the epochs.

        So the occasional dearer step of a rule counts in full, and the compiling of a kernel, which falls into one
        epoch, not at all unless it is the only one. Of an even number of epochs the lower middle one is taken.
        """
        before = [(0, 0.0), *((epoch.step, epoch.optimizer_seconds) for epoch in self.history)]
        means = [(to - since) / (end - start) for (start, since), (end, to) in pairwise(before)]
        return median_low(means) if means else self.optimizer_seconds / max(self.steps, 1)

    @property
    def step_share(self) -> float:
        """The share of the training time, in [0, 1], that its steps take by `step_seconds`."""
        return self.steps * self.step_seconds / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain JSON types; a number that is not finite becomes null."""
        return _plain(asdict(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """The outcome that `to_json` wrote; a null among an epoch's numbers becomes not-a-number."""
        history = tuple(Epoch(**_with_nan(epoch)) for epoch in data["history"])
        return cls(**{**data, "history": history})


def _options_as_objects(settings: Settings) -> dict[str, Any]:
    then = settings.then
    return {
        "options": dict(settings.options),
        "then": {**asdict(then), "options": dict(then.options)} if then else None,
    }


def _options(data: Mapping[str, Any]) -> Options:
    return tuple(sorted((name, _tuples(value)) for name, value in data.items()))


def _with_nan(epoch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in epoch.items()}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
