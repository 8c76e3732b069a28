"""Paddle: a step of ours against Paddle's own optimizers, on as many threads as Paddle takes unasked, and on all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.runner import Result, compare, interleave

PACKAGES = ("paddlepaddle", "numba")

SHAPES = {
    "16 M float32 parameters in 4 tensors": [(2048, 2048)] * 4,
    "0.2 M in 100 tensors": [(40, 50)] * 100,
    "1,600 in 8 tensors": [(200,)] * 8,
}
TARGET = 1.15


def against_paddle() -> Iterator[Result]:
    """Paddle settles how many threads there are when it is imported: 1, unless OMP_NUM_THREADS says otherwise."""
    for threads in (None, os.cpu_count()):
        env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        if threads is not None:
            env["OMP_NUM_THREADS"] = str(threads)
        command = [sys.executable, "-m", "benchmarks.frameworks.paddle"]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        where = "one thread" if threads is None else f"{threads} threads"
        for measure, times in json.loads(done.stdout.splitlines()[-1]).items():
            yield compare(f"Paddle, {where}: AdamW, {measure}", times, "onepass", "paddle.optimizer.AdamW", TARGET)


def stepper(make: Any, shapes: Sequence[tuple[int, ...]]) -> Callable[[], None]:
    import paddle

    params = [paddle.create_parameter(list(shape), "float32") for shape in shapes]
    for p in params:
        p.grad = paddle.full_like(p, 1e-3)
    return make(learning_rate=1e-3, parameters=params, weight_decay=1e-2).step


def measure() -> dict[str, dict[str, list[float]]]:
    import paddle

    import onepass.paddle

    found = {}
    for name, shapes in SHAPES.items():
        contenders = {
            "onepass": stepper(onepass.paddle.AdamW, shapes),
            "paddle.optimizer.AdamW": stepper(paddle.optimizer.AdamW, shapes),
        }
        size = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
        found[name] = interleave(contenders, rounds=31, inner=max(1, 200_000 // size))
    return found


measures = [against_paddle]

if __name__ == "__main__":
    print(json.dumps(measure()))
