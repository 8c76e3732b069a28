"""The linear regression of the "Adam" chapter of *Dive into Deep Learning* (d2l.ai, 12.10), on NASA's airfoil data.

1503 rows of five features and the sound pressure level to predict; every column, the target included, is standardised
over all rows with the population standard deviation, in float32; the first 1500 rows are used. The figure that the
chapter prints is the loss over those same 1500 rows after training: **nothing is held out**, so validation and test are
the training rows, and the figure says how well the optimizer minimises, not how well the model generalises. The
least-squares optimum of that loss, 0.24169, is what to hold it against.

Data: T. Brooks, D. Pope and M. Marcolini, "Airfoil Self-Noise", UCI Machine Learning Repository, dataset 291,
CC BY 4.0.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from onepass.study.errors import StudyError
from onepass.study.task import DATA_DIR_VARIABLE, HALF_MSE, Arrays, Loss, Task, data_folders, half_squared_error

FILE = "airfoil_self_noise.dat"
SHA1 = "76e5be1548fd8222e5074cf0faae75edff8cf93f"
ROWS = 1500
SOURCE = "https://archive.ics.uci.edu/dataset/291/airfoil+self+noise"
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
    rows = Arrays(features, targets)

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


def read(data_dir: Path | None) -> tuple[Tensor, Tensor]:
    """The standardised features of shape (1500, 5) and targets of shape (1500, 1), both float32."""
    raw = _find(data_dir)
    table = np.loadtxt(io.BytesIO(raw), dtype=np.float32)
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    data = torch.from_numpy(table[:ROWS])
    return data[:, :-1].contiguous(), data[:, -1:].contiguous()


def least_squares(features: Tensor, targets: Tensor) -> float:
    """The least mean of (ŷ - y)²/2 that a linear model with a bias can reach, in float64."""
    design = np.column_stack([features.double().numpy(), np.ones(len(features))])
    goal = targets.double().numpy()
    solution = np.linalg.lstsq(design, goal, rcond=None)[0]
    return float(np.mean((design @ solution - goal) ** 2) / 2)


def _find(data_dir: Path | None) -> bytes:
    folders = data_folders(data_dir)
    for path in (folder / FILE for folder in folders):
        if path.is_file():
            raw = path.read_bytes()
            found = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
            if found != SHA1:
                raise StudyError(
                    f"{path} is damaged: its SHA-1 is {found}, not {SHA1}; download it again from {SOURCE}"
                )
            return raw
    raise StudyError(
        f"no {FILE} in {' or '.join(map(str, folders))}; download it from {SOURCE} (UCI dataset 291) and name its "
        f"folder with --data-dir or ${DATA_DIR_VARIABLE}"
    )
