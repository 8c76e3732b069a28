"""What is run in every framework, and how it is judged.

Linear regression on the airfoil data, in float32, by Adam and by Yogi, in the two forms of the chapter:

- "from scratch": the gradient of the mean of (ŷ - y)²/2 by the framework's autograd (in NumPy by hand) and the step by
  `onepass.functional`; 2 epochs; ε is 1e-6 for Adam and 1e-3 for Yogi;
- "concise": the framework's own layer and optimizer, or ours in their place, on the mean of (ŷ - y)²; 4 epochs; ε is
  1e-8 for Adam and 1e-3 for Yogi.

Both: w ~ N(0, 0.01²), b = 0, shuffled batches of 10, learning rate 0.01. A seed stands for the same first weights and
the same order of the rows in every framework, so that a difference in the result is one in the arithmetic. The figure
is half the mean squared error over all rows after training, in float64.
"""

from __future__ import annotations

import importlib
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from onepass.study.airfoil import Array, half_mse, least_squares, read
from onepass.study.errors import StudyError

NAMES = ("numpy", "torch", "jax", "tensorflow", "paddle", "mxnet")
SCRATCH, CONCISE = "from scratch", "concise"
FUNCTIONAL = "onepass.functional"
LR, BATCH = 0.01, 10


@dataclass(frozen=True)
class Form:
    """One row of the table.

    Attributes:
        optimizer: "adam" or "yogi".
        style: `SCRATCH` or `CONCISE`.
        by: the module whose optimizer it is.
    """

    optimizer: str
    style: str
    by: str

    @property
    def epochs(self) -> int:
        """Passes over the rows."""
        return 2 if self.style == SCRATCH else 4

    @property
    def eps(self) -> float:
        """The optimizer's ε."""
        return 1e-3 if self.optimizer == "yogi" else 1e-6 if self.style == SCRATCH else 1e-8


class Trainer(ABC):
    """A model with its optimizer. It is made once and started anew for every seed, so that it is compiled once."""

    @abstractmethod
    def start(self, weight: Array, bias: Array) -> None:
        """Begin with these: the weight of shape (5, 1), the bias of shape (1,), both float32."""

    @abstractmethod
    def step(self, features: Array, targets: Array) -> None:
        """One step on a batch: (10, 5) and (10, 1), both float32."""

    @abstractmethod
    def weights(self) -> tuple[Array, Array]:
        """The weight and the bias as they are now, in the shapes in which they came."""


@dataclass(frozen=True)
class Framework:
    """What a framework's file defines under the name ``FRAMEWORK``.

    Attributes:
        title: as its makers write it.
        packages: the distributions whose versions are worth knowing.
        forms: for each form that it has, what makes its trainer.
    """

    title: str
    packages: tuple[str, ...]
    forms: Mapping[Form, Callable[[Form], Trainer]]


def forms(
    scratch: Callable[[Form], Trainer],
    *concise: tuple[str, tuple[str, ...], Callable[[Form], Trainer]],
) -> dict[Form, Callable[[Form], Trainer]]:
    """The table of a framework's forms; each concise one is given as its module, its optimizers and its maker."""
    table = {Form(optimizer, SCRATCH, FUNCTIONAL): scratch for optimizer in ("adam", "yogi")}
    for by, optimizers, make in concise:
        table.update({Form(optimizer, CONCISE, by): make for optimizer in optimizers})
    return table


@dataclass(frozen=True)
class Row:
    """What one form came to: for each seed the loss, and the seconds that an epoch took."""

    form: Form
    losses: tuple[float, ...]
    seconds: tuple[float, ...]


def load(name: str) -> Framework:
    """The framework of that name. Only this one is imported.

    `StudyError` for an unknown name, and for one that is not installed.
    """
    if name not in NAMES:
        raise StudyError(f"unknown framework {name!r}; choose one of {', '.join(NAMES)}")
    try:
        return importlib.import_module(f"onepass.study.frameworks.{name}").FRAMEWORK
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("onepass"):
            raise
        raise StudyError(f"{name} is not installed here: {error.name} is missing") from error


def run(framework: Framework, seeds: range, data_dir: Path | None) -> Iterator[Row]:
    """Every form of a framework, over these seeds, each as soon as it is done."""
    features, targets = read(data_dir)
    for form, make in framework.forms.items():
        trainer = make(form)
        # What the first steps pay for tracing and compiling is not an epoch's price.
        _train(trainer, form, features[: 2 * BATCH], targets[: 2 * BATCH], 0)
        results = [_train(trainer, form, features, targets, seed) for seed in seeds]
        yield Row(form, tuple(loss for loss, _ in results), tuple(seconds for _, seconds in results))


def _train(trainer: Trainer, form: Form, features: Array, targets: Array, seed: int) -> tuple[float, float]:
    random = np.random.default_rng(seed)
    trainer.start(random.normal(0, 0.01, (features.shape[1], 1)).astype(np.float32), np.zeros(1, np.float32))
    begin = time.perf_counter()
    for _ in range(form.epochs):
        order = random.permutation(len(features))
        for rows in np.split(order, len(order) // BATCH):
            trainer.step(features[rows], targets[rows])
    weight, bias = trainer.weights()
    return half_mse(features, targets, weight, bias), (time.perf_counter() - begin) / form.epochs


def record(framework: Framework, rows: list[Row], seeds: range, data_dir: Path | None) -> dict[str, Any]:
    """The results as plain data, with all that they depend on."""
    return {
        "title": framework.title,
        "versions": _versions(framework),
        "first_seed": seeds.start,
        "optimum": least_squares(*read(data_dir)),
        "rows": [
            {
                "optimizer": row.form.optimizer,
                "style": row.form.style,
                "by": row.form.by,
                "epochs": row.form.epochs,
                "lr": LR,
                "eps": row.form.eps,
                "losses": row.losses,
                "seconds_per_epoch": row.seconds,
            }
            for row in rows
        ],
    }


def _versions(framework: Framework) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in dict.fromkeys((*framework.packages, "numpy")):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
