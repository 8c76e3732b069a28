"""NASA's airfoil data as the "Adam" chapter of *Dive into Deep Learning* (d2l.ai, 12.10) takes them, in NumPy alone.

1503 rows of five features and the sound pressure level to predict; every column, the target included, is standardised
over all rows with the population standard deviation, in float32; the first 1500 rows are used.

Data: T. Brooks, D. Pope and M. Marcolini, "Airfoil Self-Noise", UCI Machine Learning Repository, dataset 291,
CC BY 4.0.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from onepass.study.errors import StudyError
from onepass.study.folders import DATA_DIR_VARIABLE, data_folders

FILE = "airfoil_self_noise.dat"
SHA1 = "76e5be1548fd8222e5074cf0faae75edff8cf93f"
ROWS = 1500
SOURCE = "https://archive.ics.uci.edu/dataset/291/airfoil+self+noise"

Array = np.ndarray[Any, Any]


def read(data_dir: Path | None) -> tuple[Array, Array]:
    """The standardised features of shape (1500, 5) and targets of shape (1500, 1), both float32.

    `StudyError` if the data are missing or not the original.
    """
    table = np.loadtxt(io.BytesIO(_find(data_dir)), dtype=np.float32)
    table = (table - table.mean(axis=0)) / table.std(axis=0)
    return np.ascontiguousarray(table[:ROWS, :-1]), np.ascontiguousarray(table[:ROWS, -1:])


def least_squares(features: Array, targets: Array) -> float:
    """The least mean of (ŷ - y)²/2 that a linear model with a bias can reach, in float64."""
    design = np.column_stack([features.astype(np.float64), np.ones(len(features))])
    solution = np.linalg.lstsq(design, targets.astype(np.float64), rcond=None)[0]
    return half_mse(features, targets, solution[:-1], solution[-1])


def half_mse(features: Array, targets: Array, weight: Array, bias: Array) -> float:
    """The mean of (ŷ - y)²/2 over all rows, in float64; the weight is (5, 1), the bias (1,)."""
    error = features.astype(np.float64) @ weight.astype(np.float64) + bias - targets
    return float(np.mean(error**2) / 2)


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
