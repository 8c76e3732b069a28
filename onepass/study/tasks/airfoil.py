"""The linear regression of the "Adam" chapter of *Dive into Deep Learning* (d2l.ai, 12.10), on NASA's airfoil data.

The data are described in `onepass.study.airfoil`. The figure that the chapter prints is the loss over the same 1500
rows after training: **nothing is held out**, so validation and test are the training rows, and the figure says how well
the optimizer minimises, not how well the model generalises. The least-squares optimum of that loss, 0.24169, is what to
hold it against.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from onepass.study.airfoil import least_squares, read
from onepass.study.task import HALF_MSE, Arrays, Loss, Task, half_squared_error

NOTES = "no held-out data: validation and test are the 1500 training rows, as in the chapter"


def make_task(data_dir: Path | None = None) -> Task:
    """The chapter's form "from scratch": loss (ŷ - y)²/2, 2 epochs of batches of 10, w ~ N(0, 0.01²), b = 0.

    Learning rate 0.01; ε is 1e-6 for Adam and 1e-3 for Yogi. `StudyError` if the data are missing or not the original.
    """
    return _task("airfoil", half_squared_error, epochs=2, adam_eps=1e-6, zero_bias=True, data_dir=data_dir)


def make_concise_task(data_dir: Path | None = None) -> Task:
    """The chapter's "concise" form: the full mean squared error as loss, 4 epochs, half of it reported.

    w ~ N(0, 0.01²); the bias starts where `torch.nn.Linear` puts it, and ε is torch's 1e-8 for Adam, as in the chapter.
    """
    return _task("airfoil:concise", nn.functional.mse_loss, epochs=4, adam_eps=1e-8, zero_bias=False, data_dir=data_dir)


def _task(name: str, loss: Loss, *, epochs: int, adam_eps: float, zero_bias: bool, data_dir: Path | None) -> Task:
    features, targets = read(data_dir)
    rows = Arrays(torch.from_numpy(features), torch.from_numpy(targets))

    def make_model() -> nn.Module:
        model = nn.Linear(features.shape[1], 1)
        nn.init.normal_(model.weight, std=0.01)
        if zero_bias:
            nn.init.zeros_(model.bias)
        return model

    return Task(
        name=name,
        model=make_model,
        train=rows,
        validation=rows,
        test=rows,
        loss=loss,
        metric=HALF_MSE,
        batch_size=10,
        epochs=epochs,
        optimizer="adam",
        lr=0.01,
        weight_decay=0.0,
        options={"adam": {"eps": adam_eps}, "yogi": {"eps": 1e-3}},
        optimum=least_squares(features, targets),
        notes=NOTES,
    )
