"""The words that emitted kernels use besides Triton's own, and the kernels that no program changes.

The one file that imports Triton (the emitted source does so itself). With ``TRITON_INTERPRET=1`` kernels run in
Triton's interpreter on CPU tensors; what it lacks or rounds otherwise than a GPU has a stand-in here.
"""

# Inside a kernel every name is Triton's, which no type checker knows.
# pyright: reportIndexIssue=false, reportAttributeAccessIssue=false, reportInvalidTypeForm=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportRedeclaration=false

from __future__ import annotations

import os
from typing import Any

import numpy as np
import triton
import triton.language as tl
from triton.language.extra import libdevice

INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")

# Contraction is meant; and 128 threads to the 1024 elements of a block.
OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}


@triton.jit
def divide(a, b):
    """Rounded to the nearest; Triton's own division of float32 is off by up to two units in the last place."""
    if a.dtype == tl.float64:
        return a / b
    else:  # noqa: RET505 - what stands in no branch is compiled for every type
        return tl.div_rn(a, b)


@triton.jit
def root(x):
    """Rounded to the nearest as well."""
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:  # noqa: RET505
        return tl.sqrt_rn(x)


@triton.jit
def larger(a, b):
    return tl.where((a > b) | (a != a), a, b)


@triton.jit
def smaller(a, b):
    return tl.where((a < b) | (a != a), a, b)


@triton.jit
def sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x * 0.0)).to(x.dtype)


if INTERPRETED:
    # The interpreter has no functions of libdevice.

    def _in_numpy(function: Any) -> Any:
        def call(*args: Any) -> Any:
            with np.errstate(all="ignore"):
                data = function(*(arg.handle.data for arg in args)).astype(args[0].handle.data.dtype)
            like = max(args, key=lambda arg: len(arg.shape))
            handle = type(like.handle)(data, like.dtype.scalar)
            return tl.core.tensor(handle, like.type)

        return call

    exponential, logarithm = _in_numpy(np.exp), _in_numpy(np.log)
    power, fmod = _in_numpy(np.power), _in_numpy(np.fmod)

    # It cuts bfloat16 off where a GPU rounds to the nearest, ties to even, and loses what is denormal.
    bfloat16 = tl.uint16

    @triton.jit
    def widen(x):
        return (x.to(tl.uint32) << 16).to(tl.float32, bitcast=True)

    @triton.jit
    def narrow(x):
        bits = x.to(tl.float32).to(tl.uint32, bitcast=True)
        rounded = bits + (((bits >> 16) & 1) + 0x7FFF)
        return (tl.where(x == x, rounded, bits | 0x400000) >> 16).to(tl.uint16)

else:
    bfloat16 = tl.bfloat16

    @triton.jit
    def exponential(x):
        return libdevice.exp(x)

    @triton.jit
    def logarithm(x):
        return libdevice.log(x)

    @triton.jit
    def power(a, b):
        return libdevice.pow(a, b)

    @triton.jit
    def fmod(a, b):
        return libdevice.fmod(a, b)

    @triton.jit
    def widen(x):
        return x.to(tl.float32)

    @triton.jit
    def narrow(x):
        return x.to(tl.bfloat16)


@triton.jit
def remainder(a, b):
    """With the sign of the divisor, as Python has it."""
    r = fmod(a, b)
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)


@triton.jit
def add_up(
    partials,
    extents,
    counts,
    reduced,
    WIDTH: tl.constexpr,
    NODE: tl.constexpr,
    COLUMNS: tl.constexpr,
    COLUMN: tl.constexpr,
    MEAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """For each tensor the sum of its chunks' partial sums, in an order that depends on nothing but their number."""
    tensor = tl.program_id(0).to(tl.int64)
    first = tl.load(extents + 2 * tensor)
    last = tl.load(extents + 2 * tensor + 1)
    lanes = tl.arange(0, BLOCK)
    sums = tl.zeros((BLOCK,), tl.float64)
    for chunk in range(first, last, BLOCK):
        sums += tl.load(partials + WIDTH * (chunk + lanes) + NODE, mask=lanes < last - chunk, other=0.0)
    total = tl.sum(sums, 0)
    if MEAN:
        total = total / tl.load(counts + tensor).to(tl.float64)
    tl.store(reduced + COLUMNS * tensor + COLUMN, total)


@triton.jit
def settle(
    steps,
    scalars,
    after,
    roster,
    found,
    guard,
    skipped,
    count,
    SCALARS: tl.constexpr,
    COUNTS_SKIPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count the step of those that took part in it, and keep their scalar states, unless it was skipped."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    number = tl.load(count)
    mask = i < number
    guarded = tl.load(guard) > 0
    if (tl.load(found) > 0) | guarded:
        if (tl.program_id(0) == 0) & guarded & COUNTS_SKIPS:
            tl.store(skipped, tl.load(skipped) + 1)
    else:
        mask = mask & (tl.load(roster + 2 * i + 1, mask=mask, other=0) != 0)
        tl.store(steps + i, tl.load(steps + i, mask=mask, other=0.0) + 1.0, mask=mask)
        for k in tl.static_range(SCALARS):
            tl.store(scalars + k * number + i, tl.load(after + k * number + i, mask=mask, other=0.0), mask=mask)


def prepare(kernel: Any, *arguments: Any, **constants: Any) -> None:
    """Compile a kernel for arguments like these; Triton's interpreter has nothing to compile."""
    if not INTERPRETED:
        kernel.warmup(*arguments, **constants, grid=(1,), **OPTIONS)


def launch(kernel: Any, instances: int, *arguments: Any, **constants: Any) -> None:
    """Run a kernel in so many instances, on the current stream."""
    if INTERPRETED:
        with np.errstate(all="ignore"):
            kernel[(instances,)](*arguments, **constants, **OPTIONS)
    else:
        kernel[(instances,)](*arguments, **constants, **OPTIONS)


def release() -> str:
    """The version of Triton."""
    return triton.__version__
