"""NumPy, and CuPy, which has the same functions."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np

from onepass.functional.library import Library


@cache
def _name(dtype: Any) -> str:
    # NumPy spells it anew each time, which takes longer than an operation on a small array.
    return dtype.name


class NumPy(Library):
    """Arrays of ``package``, which is ``numpy`` or follows it name for name."""

    def __init__(self, package: str):
        self.name = {"numpy": "NumPy", "cupy": "CuPy"}[package]
        self.xp = importlib.import_module(package)

    def dtype(self, x: Any) -> str:
        return _name(x.dtype)

    def cast(self, x: Any, dtype: str) -> Any:
        if isinstance(x, self.xp.ndarray) and _name(x.dtype) == dtype:
            return x
        # Arithmetic on an array without dimensions leaves a scalar: what is stored is an array again.
        return self.xp.asarray(x, dtype=dtype)

    def filled(self, x: Any, value: float, dtype: str) -> Any:
        return self.xp.full_like(x, value, dtype=dtype, subok=False)

    def arithmetic(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")


def library(package: str) -> Library:
    """The library that serves arrays of this package."""
    return NumPy(package)
