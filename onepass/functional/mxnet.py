"""MXNet 1.9.1: the arrays of ``mxnet.np``, outside or inside its autograd.

MXNet is archived. Its last wheels need NumPy < 1.24: ``pip install "mxnet==1.9.1" "numpy<1.24"``. Install onepass
beside it with ``pip install --no-deps``: it then does without torch, which asks for a newer NumPy. On Linux the wheel
brings OpenBLAS and libgfortran along, and takes libgomp and libquadmath from the system (Debian: ``apt-get install
libgomp1 libquadmath0``).
"""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np

from onepass.functional.library import Library


class _Namespace:
    """``mxnet.np`` where it does what NumPy does, and otherwise what NumPy would do."""

    def __getattr__(self, name: str) -> Any:
        return getattr(mx.np, name)

    def asarray(self, x: Any, dtype: Any) -> Any:
        return mx.np.array(x, dtype=dtype)

    def clip(self, x: Any, low: float | None, high: float | None) -> Any:
        # mxnet.np.clip takes its bounds in float32, whatever the array is.
        x = x if low is None else mx.np.maximum(x, low)
        return x if high is None else mx.np.minimum(x, high)

    def sign(self, x: Any) -> Any:
        # mxnet.np.sign makes 0 of a NaN.
        return mx.np.where(x == x, mx.np.sign(x), x)

    # MXNet's & and | do not broadcast, and know no Python bool.

    def mended_and(self, a: Any, b: Any) -> Any:
        return (1.0 * a) * (1.0 * b) > 0

    def mended_or(self, a: Any, b: Any) -> Any:
        return (1.0 * a) + (1.0 * b) > 0


class MXNet(Library):
    """MXNet's arrays."""

    name = "MXNet"
    xp = _Namespace()

    def dtype(self, x: Any) -> str:
        if not isinstance(x, mx.np.ndarray):
            raise TypeError(
                f"an array of type {type(x).__name__} is of MXNet's old interface: make it one of mxnet.np, "
                "with x.as_np_ndarray(), or everywhere with mxnet.npx.set_np()"
            )
        return np.dtype(x.dtype).name

    def cast(self, x: Any, dtype: str) -> Any:
        return x if self.dtype(x) == dtype else x.astype(dtype)

    def filled(self, x: Any, value: float, dtype: str) -> Any:
        return mx.np.full(x.shape, value, dtype=dtype, ctx=x.ctx)


def library(package: str) -> Library:
    """The library that serves arrays of this package."""
    return MXNet()
