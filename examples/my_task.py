"""Two interleaved half-moons: `onepass train examples/my_task.py:two_moons`, and `onepass compare` just so."""

import torch
from sklearn.datasets import make_moons
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from onepass.study.task import ACCURACY, Task


def two_moons():
    points, classes = make_moons(1200, noise=0.2, random_state=0)
    data = TensorDataset(torch.tensor(points, dtype=torch.float32), torch.tensor(classes))
    train, validation, test = torch.utils.data.random_split(data, [800, 200, 200], torch.Generator().manual_seed(0))
    loader = DataLoader(train, batch_size=16, shuffle=True)
    loss = nn.CrossEntropyLoss()
    return Task("two moons", lambda: nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2)),
                loader, validation, test, loss, ACCURACY, epochs=10, lr=0.01)  # fmt: skip
