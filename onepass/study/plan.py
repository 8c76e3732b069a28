"""What a comparison will run: candidates, the learning-rate grid, seeds, and the settings of every single trial."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

import onepass
from onepass.study.errors import StudyError
from onepass.study.optimizers import complete_options, make_optimizer, read_options
from onepass.study.record import Options, Settings
from onepass.study.task import BatchSize, Task

DEFAULT_OPTIMIZERS = "sgd:momentum=0.9,adagrad,rmsprop,adam,adamw,adamax,nadam,radam,yogi,ranger"
DEFAULT_GRID = "1e-4,3e-4,1e-3,3e-3,1e-2,3e-2,1e-1,3e-1,1"

# Tuning seeds start here, final seeds at 0, so that no final run ever repeats what a setting was chosen on.
TUNING_SEED = 1_000_000

# Of each trial: the parallel processes take up the other cores, and the numbers do not depend on how many there are.
THREADS = 1

Stage = Literal["tuning", "final"]


@dataclass(frozen=True)
class Candidate:
    """An optimizer with its hyperparameters; the learning rate is what tuning finds.

    optimizer: name for `onepass.create`. class_name: its class in `onepass`. options: (name, value) pairs.
    """

    optimizer: str
    class_name: str
    options: Options = ()

    @property
    def label(self) -> str:
        return " ".join([self.class_name, *(f"{name}={value}" for name, value in self.options)])

    def code(self, lr: float, weight_decay: float) -> str:
        """The line of Python that makes this optimizer for a ``model``."""
        options = {"lr": lr, **dict(self.options), "weight_decay": weight_decay}
        arguments = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return f"opt = onepass.{self.class_name}(model.parameters(), {arguments})"


@dataclass(frozen=True)
class Trial:
    """One training run: `stage` "tuning" is judged on validation, "final" on the test split."""

    stage: Stage
    candidate: Candidate
    lr: float
    seed: int


@dataclass(frozen=True)
class Plan:
    """A whole comparison: everything here is the same for every candidate.

    grid: learning rates, ascending, positive. tuning_seeds and seeds share no number. batch_size, schedule, warmup and
    device are as in `Settings`.
    """

    candidates: tuple[Candidate, ...]
    grid: tuple[float, ...]
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    epochs: int
    batch_size: BatchSize | None
    schedule: str
    warmup: float | None
    weight_decay: float
    device: str

    @property
    def tuning(self) -> list[Trial]:
        """Every candidate at every learning rate on every tuning seed."""
        return [
            Trial("tuning", candidate, lr, seed)
            for seed in self.tuning_seeds
            for candidate in self.candidates
            for lr in self.grid
        ]

    def finals(self, tuned: dict[str, float]) -> list[Trial]:
        """Every candidate, at the learning rate `tuned` found for its label, on every final seed."""
        return [
            Trial("final", candidate, tuned[candidate.label], seed)
            for seed in self.seeds
            for candidate in self.candidates
        ]

    @property
    def total(self) -> int:
        """Number of trials in both stages."""
        return len(self.candidates) * (len(self.grid) * len(self.tuning_seeds) + len(self.seeds))

    def settings(self, trial: Trial) -> Settings:
        """What `fit` needs to run `trial`."""
        return Settings(
            optimizer=trial.candidate.optimizer,
            lr=trial.lr,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup=self.warmup,
            epochs=self.epochs,
            batch_size=self.batch_size,
            seed=trial.seed,
            device=self.device,
            threads=THREADS,
            options=trial.candidate.options,
        )


def parse_candidates(text: str, task: Task, weight_decay: float) -> tuple[Candidate, ...]:
    """Candidates from ``NAME[:OPTION=VALUE[;OPTION=VALUE...]],...``, values as in Python; ``all`` is every one.

    What the task prescribes for an optimizer is part of its options. Each candidate is constructed once on a dummy
    parameter, so that a misspelt name or a bad value raises StudyError before anything is trained.
    """
    specs = onepass.list_optimizers() if text.strip().lower() == "all" else _split(text, ",")
    candidates = tuple(_parse_candidate(spec, task, weight_decay) for spec in specs)
    labels = [candidate.label for candidate in candidates]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise StudyError(f"--optimizers names {', '.join(sorted(twice))} twice; name each candidate once")
    if len(candidates) < 2:
        raise StudyError(f"--optimizers {text!r} names {len(candidates)}; a comparison needs at least two")
    return candidates


def _parse_candidate(spec: str, task: Task, weight_decay: float) -> Candidate:
    name, _, rest = (part.strip() for part in spec.partition(":"))
    pairs = _split(rest, ";")
    for option, remedy in {"lr": "--lr-grid", "weight_decay": "--weight-decay"}.items():
        if any(pair.partition("=")[0].strip() == option for pair in pairs):
            raise StudyError(f"--optimizers {spec!r}: {option} is the same for every candidate; set it with {remedy}")
    options = complete_options(task, name, read_options(pairs, "--optimizers"))
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    made = make_optimizer(task, name, [parameter], 1e-3, weight_decay, options)
    return Candidate(name.lower(), type(made).__name__, options)


def _split(text: str, separator: str) -> list[str]:
    """Parts of `text` between separators that stand outside brackets; empty parts are dropped."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def parse_grid(text: str) -> tuple[float, ...]:
    """Learning rates from ``1e-4,1e-3,...``, sorted, each once; StudyError unless all are positive and finite."""
    rates = set()
    for part in _split(text, ","):
        try:
            rate = float(part)
        except ValueError:
            raise StudyError(f"--lr-grid: {part!r} is not a number; write it as 1e-4,1e-3,1e-2") from None
        if not (rate > 0 and math.isfinite(rate)):
            raise StudyError(f"--lr-grid: {part} is not a positive, finite learning rate")
        rates.add(rate)
    if not rates:
        raise StudyError("--lr-grid is empty; write it as 1e-4,1e-3,1e-2")
    return tuple(sorted(rates))


def seed_ranges(tuning: int, final: int, first: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(tuning seeds, final seeds), disjoint; StudyError for fewer than 1 and 2 of them."""
    if tuning < 1:
        raise StudyError(f"--tuning-seeds is {tuning}; tuning needs at least 1")
    if not 2 <= final <= TUNING_SEED:
        raise StudyError(f"--seeds is {final}; between 2 and {TUNING_SEED} runs show how much luck there is")
    if first < 0:
        raise StudyError(f"--seed is {first}; seeds are 0 or more")
    return _count_up(first + TUNING_SEED, tuning), _count_up(first, final)


def _count_up(start: int, count: int) -> tuple[int, ...]:
    return tuple(range(start, start + count))
