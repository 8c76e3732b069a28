"""NumPy, and CuPy, which has the same functions."""

from __future__ import annotations

import importlib
from typing import Any

from onepass.functional.library import Library


class NumPy(Library):
    """Arrays of ``package``, which is ``numpy`` or follows it name for name."""

    def __init__(self, package: str):
        self.name = {"numpy": "NumPy", "cupy": "CuPy"}[package]
        self.xp = importlib.import_module(package)

    def dtype(self, x: Any) -> str:
        return x.dtype.name

    def cast(self, x: Any, dtype: str) -> Any:
        return x.astype(dtype, copy=False)

    def filled(self, x: Any, value: float, dtype: str) -> Any:
        return self.xp.full_like(x, value, dtype=dtype)


def library(package: str) -> Library:
    """The library that serves arrays of this package."""
    return NumPy(package)
