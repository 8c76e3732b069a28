"""A made-up comparison with every feature that the pictures and the page must cope with; nothing is trained."""

from __future__ import annotations

import math

import numpy as np

from onepass.study.plan import DEFAULT_GRID, Candidate, Plan, Trial, parse_grid
from onepass.study.record import Epoch, Outcome
from onepass.study.results import Finished, Results, Subject, tuned_lr

# Class, options, best log10 learning rate, best accuracy, milliseconds a step.
PROFILES = (
    ("SGD", (("momentum", 0.9),), -1.0, 0.974, 0.08),
    ("Adagrad", (), -1.5, 0.968, 0.10),
    ("RMSprop", (), -2.5, 0.976, 0.12),
    ("Adam", (), -2.4, 0.981, 0.16),
    ("AdamW", (), -2.4, 0.982, 0.17),
    ("Adamax", (), -2.0, 0.980, 0.18),
    ("NAdam", (), -2.4, 0.983, 0.20),
    ("RAdam", (), -2.0, 0.983, 0.19),
    ("Yogi", (), -1.8, 0.977, 0.21),
    ("Ranger", (), -1.7, 0.984, 0.31),
)
CHANCE, EPOCHS, STEPS = 0.1, 12, 34


def candidate(name: str, **options: object) -> Candidate:
    """The candidate of a class that `onepass` offers under its lower-case name."""
    return Candidate(name.lower(), name, tuple(sorted(options.items())))


def make_plan(candidates: tuple[Candidate, ...], **changes: object) -> Plan:
    """A plan of 9 learning rates, 1 tuning seed and 10 final seeds."""
    settings = {
        "grid": parse_grid(DEFAULT_GRID),
        "tuning_seeds": (1_000_000,),
        "seeds": tuple(range(10)),
        "epochs": EPOCHS,
        "batch_size": 32,
        "schedule": "cosine",
        "warmup": 0.0,
        "weight_decay": 0.01,
        "device": "cpu",
        **changes,
    }
    return Plan(candidates=candidates, **settings)


def make_outcome(end: float, step_ms: float = 0.1, diverged: bool = False, noise: float = 0.0) -> Outcome:
    """A run whose validation and test metric end at `end`; a diverged one stops after four epochs."""
    epochs = 4 if diverged else EPOCHS
    share = np.arange(1, epochs + 1) / EPOCHS
    metrics = CHANCE + (end - CHANCE) * (1 - np.exp(-7 * share)) / (1 - math.exp(-7)) + noise
    seconds = STEPS * (0.8 + step_ms) / 1e3
    history = tuple(
        Epoch(
            epoch=epoch,
            step=STEPS * epoch,
            seconds=seconds * epoch,
            optimizer_seconds=STEPS * step_ms / 1e3 * epoch,
            train_loss=2.3 * (1.02 - metric),
            validation_loss=2.5 * (1.02 - metric),
            validation_metric=float(metric),
            lr=0.01,
            optimizer="adam",
        )
        for epoch, metric in enumerate(metrics, start=1)
    )
    return Outcome(
        history=history,
        test_loss=None if diverged else 2.5 * (1.02 - end),
        test_metric=None if diverged else end,
        diverged=diverged,
        diverged_at=STEPS * epochs + 3 if diverged else None,
        diverged_lr=0.3 if diverged else None,
        steps=STEPS * epochs,
        seconds=seconds * epochs,
        optimizer_seconds=STEPS * step_ms / 1e3 * epochs,
    )


def make_results(higher_is_better: bool = True) -> Results:
    """Ten optimizers; RMSprop and Yogi have diverged final runs, every one but SGD diverges at the highest rates."""
    random = np.random.default_rng(3)
    plan = make_plan(tuple(Candidate(name.lower(), name, options) for name, options, *_ in PROFILES))
    subject = Subject("digits", "digits", "accuracy" if higher_is_better else "mse", higher_is_better)
    finished = []
    for each, (_, _, best, top, step_ms) in zip(plan.candidates, PROFILES, strict=True):
        for trial in plan.tuning:
            if trial.candidate == each:
                distance = math.log10(trial.lr) - best
                end = top - (top - CHANCE) * min(1, (distance / (2.6 if distance < 0 else 1.6)) ** 4)
                end = round(360 * end) / 360
                finished.append(
                    Finished(trial, make_outcome(end, step_ms, distance > 1.5 and each != plan.candidates[0]))
                )
        lr = tuned_lr([one for one in finished if one.trial.candidate == each], Subject("", "", "accuracy", True))
        for seed in plan.seeds:
            end = round(360 * float(top + random.normal(0, 0.004))) / 360
            diverged = seed < {"RMSprop": 3, "Yogi": 6}.get(each.class_name, 0)
            slip = float(random.normal(0, 0.003))
            finished.append(
                Finished(Trial("final", each, lr, seed), make_outcome(min(end, 1), step_ms, diverged, slip))
            )
    environment = {
        "versions": {"python": "3.12.1", "torch": "2.13.0", "numpy": "2.4.6", "onepass": "0.1.0"},
        "system": "Linux x86_64",
        "processor": "A processor of no particular make",
        "cores": 2,
        "accelerator": None,
        "date": "2026-11-21 08:30 UTC",
        "workers": 2,
    }
    if not higher_is_better:
        finished = [Finished(one.trial, _flip(one.outcome)) for one in finished]
    return Results(subject, plan, tuple(finished), environment, "onepass compare digits")


def _flip(outcome: Outcome) -> Outcome:
    from dataclasses import replace

    history = tuple(replace(epoch, validation_metric=1 - epoch.validation_metric) for epoch in outcome.history)
    metric = None if outcome.test_metric is None else 1 - outcome.test_metric
    return replace(outcome, history=history, test_metric=metric)
