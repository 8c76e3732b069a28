"""Array libraries: what a step needs of one, and which one made an array."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

# For the package that an array's type comes from, the module that serves it.
_SERVED_BY = {
    "numpy": "numpy",
    "cupy": "numpy",
    "torch": "torch",
    "jax": "jax",
    "jaxlib": "jax",
    "tensorflow": "tensorflow",
    "paddle": "paddle",
    "mxnet": "mxnet",
}


class Library:
    """What a step asks of an array library.

    Attributes:
        name: as users call it.
        xp: the namespace in which the op table finds ``sqrt``, ``where``, ``sum`` and the like.

    A library whose functions are traced, so that a step count can be an array whose value is not known yet, also
    answers for the methods below the line.
    """

    name: str
    xp: Any

    def dtype(self, x: Any) -> str:
        """The name of an array's type: ``"float32"``."""
        raise NotImplementedError

    def cast(self, x: Any, dtype: str) -> Any:
        """The array in another type, or itself."""
        raise NotImplementedError

    def filled(self, x: Any, value: float, dtype: str) -> Any:
        """An array like ``x``, on the same device, with one value everywhere."""
        raise NotImplementedError

    def arithmetic(self) -> AbstractContextManager[Any]:
        """Where arrays are computed on: as IEEE 754 says, without a word about infinities and NaNs."""
        return nullcontext()

    # For traced functions

    def is_traced(self, x: Any) -> bool:
        """Whether ``x`` is a number whose value is not known yet."""
        return False

    def float64(self) -> AbstractContextManager[Any]:
        """Where step values are computed."""
        return nullcontext()

    def step_value(self, x: Any) -> Any:
        """A number that is traced as a float64 array without dimensions."""
        raise NotImplementedError

    def cond(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        """One of two results, lists and dicts of arrays, as a traced condition says."""
        raise NotImplementedError


@cache
def _library(package: str) -> Library:
    return importlib.import_module(f"onepass.functional.{_SERVED_BY[package]}").library(package)


def library_of(arrays: Iterable[tuple[str, Any]]) -> Library:
    """The library that made all of these arrays, each given with where it stands.

    Raises:
        TypeError: one is no array of a library that is served, or they come from several.
    """
    first: tuple[str, Library] | None = None
    for where, x in arrays:
        found = _library(_package(where, x))
        if first is None:
            first = where, found
        elif found.name != first[1].name:
            raise TypeError(
                f"{first[0]} is an array of {first[1].name} and {where} one of {found.name}: "
                "one call takes the arrays of one library; convert them first"
            )
    if first is None:
        raise ValueError("there are no arrays in params: it takes nested dicts, lists and tuples of arrays")
    return first[1]


def _package(where: str, x: Any) -> str:
    for kind in type(x).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in _SERVED_BY:
            return package
    known = "NumPy, CuPy, torch, JAX, TensorFlow, Paddle and MXNet"
    raise TypeError(f"{where} is {x!r} of type {type(x).__name__}, not an array of {known}")
