"""A task that trains in a moment, with all that resuming can get wrong: dropout, buffers, shuffling, augmentation."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from onepass.study.task import ACCURACY, Arrays, Task


class Pairs(Dataset):
    """Examples one at a time, each moved by torch's global random numbers: a data augmentation."""

    def __init__(self, points, classes, noise=0.0):
        self.points, self.classes, self.noise = points, classes, noise

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return self.points[index] + self.noise * torch.randn(2), self.classes[index]


def examples(count, seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 2, generator=generator)
    return points, (points[:, 0] * points[:, 1] > 0).long()


def make_model():
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


def tiny_task(kind="arrays", **changes):
    """kind: how the data come: "arrays", "tensors", "dataset" (augmented) or "loader" (too, and shuffled)."""
    train, validation, test = examples(60, 0), examples(20, 1), examples(20, 2)
    make = {
        "arrays": lambda pair: Arrays(*pair),
        "tensors": lambda pair: TensorDataset(*pair),
        "dataset": lambda pair: Pairs(*pair),
        "loader": lambda pair: DataLoader(Pairs(*pair), batch_size=8, shuffle=True),
        "loader of its own mind": lambda pair: DataLoader(
            Pairs(*pair), batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1)
        ),
    }[kind]
    data = {"train": make(train), "validation": make(validation), "test": make(test)}
    if kind == "dataset":
        data["train"].noise = 0.1
    if kind.startswith("loader"):
        data["train"].dataset.noise = 0.1
    fields = {
        "name": "tiny",
        "model": make_model,
        **data,
        "loss": nn.functional.cross_entropy,
        "metric": ACCURACY,
        "batch_size": None if kind.startswith("loader") else 8,
        "epochs": 4,
        "optimizer": "adam",
        "lr": 0.02,
    }
    return Task(**{**fields, **changes})


TIMES = {"seconds", "optimizer_seconds"}


def without_times(outcome):
    data = outcome.to_json()
    return {name: value for name, value in data.items() if name not in TIMES} | {
        "history": [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in data["history"]]
    }
