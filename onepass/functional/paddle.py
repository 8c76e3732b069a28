"""Paddle, as an array library, in dynamic mode: autograd follows the step unless it is told not to."""

from __future__ import annotations

from typing import Any

import paddle

from onepass.functional.library import Library


class _Namespace:
    """``paddle`` where it does what NumPy does, and otherwise what NumPy would do."""

    def __getattr__(self, name: str) -> Any:
        return getattr(paddle, name)

    def asarray(self, x: float, dtype: Any) -> Any:
        return paddle.full([], x, dtype)

    def clip(self, x: Any, low: float | None, high: float | None) -> Any:
        # paddle.clip puts the largest number in place of a bound that is None, so that infinity does not survive.
        x = x if low is None else paddle.maximum(x, paddle.full([], low, x.dtype))
        return x if high is None else paddle.minimum(x, paddle.full([], high, x.dtype))

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        kind = (b if isinstance(a, (int, float)) else a).dtype
        a, b = (paddle.full([], x, kind) if isinstance(x, (int, float)) else x for x in (a, b))
        return paddle.where(condition, a, b)

    def mean(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return paddle.mean(x, axis=axis, keepdim=keepdims)

    def sum(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return paddle.sum(x, axis=axis, keepdim=keepdims)

    def mended_pow(self, a: Any, b: Any) -> Any:
        """``a ** b``; Paddle's operator rounds an exponent that is a number to float32."""
        return paddle.pow(a, paddle.full([], b, a.dtype)) if isinstance(b, (int, float)) else a**b


class Paddle(Library):
    """Paddle's tensors."""

    name = "Paddle"
    xp = _Namespace()

    def dtype(self, x: Any) -> str:
        return str(x.dtype).rpartition(".")[2]

    def cast(self, x: Any, dtype: str) -> Any:
        return x.astype(dtype)

    def filled(self, x: Any, value: float, dtype: str) -> Any:
        return paddle.full_like(x, value, dtype=dtype)


def library(package: str) -> Library:
    """The library that serves arrays of this package."""
    return Paddle()
