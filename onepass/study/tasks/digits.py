"""Handwritten digits: 1797 grey images of 8x8 pixels, which come with scikit-learn, and a small convolutional network.

The images are E. Alpaydin and C. Kaynak's "Optical Recognition of Handwritten Digits" (UCI, dataset 80, its test part).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from onepass.study.task import ACCURACY, Arrays, Task

SPLIT_SEED = 0
HELD_OUT = 360


def make_model() -> nn.Module:
    """A convolutional network of 8 parameter tensors (13,706 numbers): (n, 1, 8, 8) to (n, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def make_task(data_dir: Path | None = None) -> Task:
    """1077 images to train on, 360 to validate, 360 to test: one fixed split, each digit in proportion.

    Pixels of 0 to 16 are scaled to [0, 1]. The data come with scikit-learn: `data_dir` is not looked at.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(np.asarray(images).reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    targets = torch.tensor(labels, dtype=torch.int64)

    def split(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        of_digits = np.asarray(labels)[rows]
        kept, held_out = train_test_split(rows, test_size=HELD_OUT, stratify=of_digits, random_state=SPLIT_SEED)
        return np.asarray(kept), np.asarray(held_out)

    rest, test = split(np.arange(len(targets)))
    train, validation = split(rest)
    return Task(
        name="digits",
        model=make_model,
        train=Arrays(inputs[train], targets[train]),
        validation=Arrays(inputs[validation], targets[validation]),
        test=Arrays(inputs[test], targets[test]),
        loss=nn.functional.cross_entropy,
        metric=ACCURACY,
        batch_size=32,
        epochs=10,
        optimizer="adamw",
        lr=3e-3,
        weight_decay=1e-2,
    )
