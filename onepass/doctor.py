"""Which backend serves which tensors on this machine, and why; `onepass doctor` prints it."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from onepass.backends import select


def examine() -> list[tuple[str, str]]:
    """What there is to know of this installation, as pairs of a heading and a finding."""
    findings = [
        ("onepass", version("onepass")),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
        *((name, _release(name)) for name in ("torch", "numpy", "numba", "llvmlite")),
        ("CPU tensors", _cpu_backend()),
        ("GPU tensors", _gpu_backend()),
    ]
    if select.missing("cpu") is None:
        from onepass.backends.cpu import machine, threads
        from onepass.backends.tables.cache import cache_folder

        name, features = machine.processor()
        vectors = [f for f in ("avx2", "avx512f", "f16c", "neon", "sve") if f"+{f}" in features.split(",")]
        findings += [
            ("Processor", f"{name}: {', '.join(vectors) or 'no vector extensions that are known here'}"),
            ("Threads", f"{torch.get_num_threads()} in {threads.pool()}"),
            ("Kernel cache", _cache(cache_folder())),
        ]
    return findings


def time_steps() -> list[tuple[str, float, float]]:
    """Milliseconds of an AdamW step, ours and torch's fused one, for a few small tensors and for one large."""
    cases = (("8 tensors, 20 thousand parameters", [(50, 50)] * 8, 200), ("one tensor, 16 million", [(4096, 4096)], 15))
    return [(name, *_race(shapes, rounds)) for name, shapes, rounds in cases]


def _race(shapes: list[tuple[int, int]], rounds: int) -> tuple[float, float]:
    from onepass.optim import AdamW

    def prepared(cls: Callable[..., Any], **options: Any) -> Callable[[], Any]:
        params = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
        for p in params:
            p.grad = torch.full_like(p, 1e-3)
        step = cls(params, **options).step
        step()
        step()
        return step

    steps = prepared(AdamW), prepared(torch.optim.AdamW, fused=True)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for step, taken in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def _release(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu_backend() -> str:
    try:
        chosen = select.choose(None)
    except ValueError as error:
        return str(error)
    asked = " (ONEPASS_BACKEND says so)" if os.environ.get("ONEPASS_BACKEND") else ""
    if chosen == "reference":
        return f"the reference: eager torch{asked}"
    reason = select.missing("cpu")
    return f"the reference, for {reason}" if reason else f"fused kernels, compiled by Numba{asked}"


def _gpu_backend() -> str:
    missing = select.missing("triton")
    kernels = "the reference: eager torch" if missing else f"fused kernels, compiled by Triton {_release('triton')}"
    reason = f", for {missing}" if missing else ""
    if missing is None and select.interprets():
        return "Triton's interpreter, on CPU tensors (TRITON_INTERPRET says so)"
    if torch.cuda.is_available():
        return f"{kernels}{reason}; {torch.cuda.device_count()} of {torch.cuda.get_device_name()}"
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        return f"{kernels}{reason}; {torch.xpu.get_device_name()}"
    return f"no GPU here; on one, {kernels}{reason}"


def _cache(folder: Any) -> str:
    kept = len(list(folder.glob("*.o"))) if folder.is_dir() else 0
    place = folder if folder.exists() else next(parent for parent in folder.parents if parent.exists())
    writable = "" if os.access(place, os.W_OK) else "; it cannot be written to, so every process compiles its own"
    return f"{folder} ({kept} kernel{'s' * (kept != 1)}{writable})"
