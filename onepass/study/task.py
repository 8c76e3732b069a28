"""What is learnt: a model, its data, its loss and the metric that judges it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

Data = Dataset[Any] | DataLoader[Any]
Loss = Callable[[Any, Any], Tensor]
BatchSize = int | Literal["full"]


@dataclass(frozen=True)
class Metric:
    """How a model is judged.

    `compute(outputs, targets)` is the mean over the examples given (a number or a 0-dim tensor), so that the mean over
    a split is the mean over its batches, each weighted by its examples.
    """

    name: str
    compute: Callable[[Any, Any], Tensor | float]
    higher_is_better: bool = True


def _accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(dim=1) == targets).float().mean()


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean of (output - target)²/2; both of one shape."""
    return nn.functional.mse_loss(outputs, targets) / 2


ACCURACY = Metric("accuracy", _accuracy)
"""The share of examples, in [0, 1], whose largest output is their class: outputs (n, classes), targets (n,)."""

MSE = Metric("mse", nn.functional.mse_loss, higher_is_better=False)
"""The mean of (output - target)²; both of one shape."""

HALF_MSE = Metric("half mse", half_squared_error, higher_is_better=False)


class Arrays(TensorDataset):
    """Tensors taken a whole batch at a time; `prepare`, if given, is applied to each batch of inputs.

    Bytes can so stay bytes until they are needed. `data[index]` takes whatever a tensor takes: an integer, a slice or a
    tensor of integers.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, prepare: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(inputs, targets)
        self.prepare = prepare

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        inputs, targets = super().__getitem__(index)
        return (self.prepare(inputs) if self.prepare else inputs), targets


@dataclass(frozen=True)
class Task:
    """One thing to learn, with everything that a run needs and the settings that it starts from.

    Args:
        name: what the tables call it.
        model: makes a fresh model, its weights drawn from torch's global random numbers.
        train, validation, test: a `Dataset` of `(input, target)` pairs, or a `DataLoader` of such batches, whose size
            is then not ours to choose.
        loss: `loss(outputs, targets)`, the mean over the batch, a 0-dim tensor.
        metric: what validation and test are judged by.
        batch_size: examples in a batch, or "full"; None: the loader's own, or 32 for a `Dataset`.
        epochs: passes over the training data.
        optimizer, lr, weight_decay: the defaults of `onepass train`; `lr` and `weight_decay` are meant for that
            optimizer alone, and another one starts from its class's own. None: its class's own here too.
        options: further hyperparameters for each optimizer that this task prescribes them for, such as
            `{"adam": {"eps": 1e-6}}`.
        optimum: the best value that the metric can take on the test data, where it is known.
        notes: what a reader of the results must know, in one line.
        source: the user's file that the task comes from, for error messages; None for the built-in tasks.
    """

    name: str
    model: Callable[[], nn.Module]
    train: Data
    validation: Data
    test: Data
    loss: Loss
    metric: Metric
    batch_size: BatchSize | None = None
    epochs: int = 10
    optimizer: str = "adamw"
    lr: float | None = None
    weight_decay: float | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    optimum: float | None = None
    notes: str = ""
    source: Path | None = None


def load_task(spec: str, data_dir: Path | None = None) -> Task:
    """The task of that name, or the one that a function in a user's file makes (`path/to/task.py:make_task`).

    `data_dir` is where its data lie; without it, `$ONEPASS_DATA_DIR` and then `./data` are looked into. `StudyError`
    for an unknown name, missing or damaged data, or a file that does not make a task.
    """
    # The tasks import `Task` from here, so they can only be imported once this module is complete.
    from onepass.study import tasks

    return tasks.load(spec, data_dir)


def task_names() -> list[str]:
    """The built-in tasks."""
    from onepass.study import tasks

    return list(tasks.TASKS)
