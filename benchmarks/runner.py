"""Time contenders in turns, so that what the machine does besides falls on all of them alike."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Contenders = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Result:
    """One line of the table: how long ours takes, as a multiple of another.

    Attributes:
        measure: what was measured.
        against: what it is compared with.
        ours, theirs: medians, in ``unit``.
        ratio: the median over rounds of ours divided by theirs in the same round.
        low, high: the quartiles of those ratios.
        target: what ``ratio`` (or ``ours``, where nothing is compared) must not exceed, or None.
        unit: of ``ours`` and ``theirs``.
    """

    measure: str
    against: str
    ours: float
    theirs: float | None
    ratio: float | None
    low: float | None
    high: float | None
    target: float | None
    unit: str = "ms"

    @property
    def reached(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        value = self.ours if self.ratio is None else self.ratio
        return None if self.target is None else value <= self.target


def interleave(contenders: Contenders, rounds: int, warmup: int = 2, inner: int = 1) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round; ``inner`` calls are timed together where one is very short."""
    for _ in range(warmup):
        for run in contenders.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in contenders.items():
                start = time.perf_counter()
                for _ in range(inner):
                    run()
                times[name].append(1e3 * (time.perf_counter() - start) / inner)
    finally:
        gc.enable()
    return times


def compare(
    measure: str,
    times: Mapping[str, list[float]],
    ours: str,
    theirs: str,
    target: float | None,
    base: str | None = None,
    unit: str = "ms",
) -> Result:
    """The ratio of two contenders; with ``base``, of what each takes beyond a third."""
    below = times[base] if base else [0.0] * len(times[ours])
    a = [x - b for x, b in zip(times[ours], below, strict=True)]
    b = [x - b for x, b in zip(times[theirs], below, strict=True)]
    # Differences of noisy times can be anything in a single round; their medians are steady.
    each = [x / y for x, y in zip(a, b, strict=True) if y > 0]
    low, middle, high = statistics.quantiles(each, n=4)
    ratio = statistics.median(a) / statistics.median(b) if base else middle
    return Result(measure, theirs, statistics.median(a), statistics.median(b), ratio, low, high, target, unit)


PACKAGES = ("onepass", "torch", "numpy", "numba", "pytorch_optimizer", "torch-optimi")


def environment(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """What a figure depends on: the machine, and the releases of these packages."""

    def release(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    threads = os.cpu_count()
    if "torch" in packages:
        import torch

        threads = torch.get_num_threads()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "date": date.today().isoformat(),
        "commit": commit,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: release(name) for name in packages},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measured_in_new_process(code: str, environment: Mapping[str, str] | None = None) -> float:
    """Run ``code`` in a new interpreter; it prints the number it measured as its last line."""
    env = {**os.environ, **(environment or {})}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return float(done.stdout.split()[-1])


def write(results: Sequence[Result], where: Path, packages: Sequence[str] = PACKAGES) -> None:
    """Append the results as JSON lines, each with what it depends on."""
    surroundings = environment(packages)
    where.parent.mkdir(parents=True, exist_ok=True)
    with where.open("a") as file:
        for result in results:
            file.write(json.dumps({**asdict(result), "reached": result.reached, **surroundings}) + "\n")
