"""The textbook's airfoil experiment written out in float64, and what any framework's run of it is held to."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from onepass.study import airfoil
from onepass.study.frameworks import experiment
from onepass.study.frameworks.experiment import CONCISE

DATA = Path(os.environ.get("ONEPASS_DATA_DIR") or Path(__file__).resolve().parents[2] / "shared" / "data")
needs_airfoil = pytest.mark.skipif(not (DATA / airfoil.FILE).is_file(), reason=f"no {airfoil.FILE} in {DATA}")

# float32 rounds a weight (|w| < 1) by at most 2^-25 in each of at most 600 steps, and a step (some 0.02) by 2^-20 of
# itself. Roundings fall to both sides: together about √600 (2^-25 + 0.02 * 2^-20) = 1.2e-6 a weight. Six weights, and
# slopes of the loss below 0.05 where a run ends, make 4e-7 of that; here is twice as much.
TOLERANCE = 1e-6


def textbook_loss(optimizer, style, eps, epochs, seed):
    """The loss after training, by the chapter's formulas."""
    features, targets = (x.astype(np.float64) for x in data())
    random = np.random.default_rng(seed)
    p = np.append(random.normal(0, 0.01, (5, 1)).astype(np.float32).astype(np.float64), [[0.0]], axis=0)
    design = np.column_stack([features, np.ones(len(features))])
    m = v = np.zeros_like(p)
    t = 0
    for _ in range(epochs):
        for rows in random.permutation(len(features)).reshape(-1, 10):
            x, t = design[rows], t + 1
            g = x.T @ (x @ p - targets[rows]) / 10 * (2 if style == CONCISE else 1)
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g**2 if optimizer == "adam" else v - 0.001 * np.sign(v - g**2) * g**2
            p = p - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
    return np.mean((design @ p - targets) ** 2) / 2


@cache
def data():
    return airfoil.read(DATA)


def check_framework(name, forms, seeds=range(3)):
    """Every form of the framework is there, and comes to the textbook's loss on every seed."""
    framework = experiment.load(name)
    assert {(form.optimizer, form.style, form.by) for form in framework.forms} == set(forms)
    for row in experiment.run(framework, seeds, DATA):
        form = row.form
        expected = [textbook_loss(form.optimizer, form.style, form.eps, form.epochs, seed) for seed in seeds]
        assert row.losses == pytest.approx(expected, abs=TOLERANCE), form
        assert all(0 < seconds < 60 for seconds in row.seconds)


def scratch_forms():
    return {(optimizer, experiment.SCRATCH, experiment.FUNCTIONAL) for optimizer in ("adam", "yogi")}


def concise_forms(own, ours, own_optimizers=("adam",)):
    return {(each, CONCISE, own) for each in own_optimizers} | {(each, CONCISE, ours) for each in ("adam", "yogi")}
