"""Run kernels on many threads: in torch's own OpenMP pool where it can be had, in Numba's otherwise.

Two pools that are awake together spin against each other, so a step that runs in another pool than the backward pass
slows the whole iteration. Torch's Linux wheels bring their own libgomp; its ``GOMP_parallel`` runs a function on the
threads that torch itself uses.
"""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import torch

_forked = False
_pool_lock = threading.Lock()


def _after_fork() -> None:
    # The threads of an OpenMP pool do not survive a fork, and libgomp waits for them for ever.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _gomp_parallel() -> Any:
    """``GOMP_parallel`` of the libgomp that torch has loaded, or None."""
    if not hasattr(os, "RTLD_NOLOAD") or not torch.backends.openmp.is_available():
        return None
    root = Path(torch.__file__).parent
    for path in [*root.glob("lib/libgomp*.so*"), *root.parent.glob("torch.libs/libgomp*.so*")]:
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD)
        except OSError:
            continue
        function = library.GOMP_parallel
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        function.restype = None
        return function
    return None


def pool() -> str:
    """Which pool runs the kernels, in words."""
    return "torch's OpenMP pool (libgomp)" if _gomp_parallel() is not None else "Numba's pool"


@cache
def _callable(function: int) -> Any:
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(function)


def run(function: int, job: int, threads: int) -> None:
    """Call the kernel at address ``function`` with ``job`` on this many threads, and return when all are done.

    The interpreter's lock is released meanwhile. After a fork everything runs on the calling thread.
    """
    if threads <= 1 or _forked:
        _callable(function)(job)
        return
    parallel = _gomp_parallel()
    if parallel is not None:
        parallel(function, job, threads, 0)
        return
    from onepass.backends.cpu.compile import run_in_numbas_pool

    # Numba's simplest threading layer ends the process when two threads enter it together.
    with _pool_lock:
        run_in_numbas_pool(function, job, threads)
