"""Keras: the step that `fit` takes, ours against Keras's own AdamW, under each backend in a process of its own.

``python -m benchmarks.frameworks.keras BACKEND`` measures one backend, and prints the times as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.runner import Result, compare, interleave

PACKAGES = ("keras", "tensorflow-cpu", "jax", "torch", "numba")

BACKENDS = ("tensorflow", "jax", "torch")
SHAPES = {
    "4 M float32 parameters in 4 variables": [(1024, 1024)] * 4,
    "0.2 M in 100 variables": [(40, 50)] * 100,
    "1,600 in 8 variables": [(200,)] * 8,
}
TARGET = 1.15


def against_keras() -> Iterator[Result]:
    for backend in BACKENDS:
        command = [sys.executable, "-m", "benchmarks.frameworks.keras", backend]
        env = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
        for measure, times in json.loads(done.stdout.splitlines()[-1]).items():
            yield compare(f"Keras on {backend}: AdamW, {measure}", times, "onepass", "keras.optimizers.AdamW", TARGET)


def stepper(opt: Any, shapes: Sequence[tuple[int, ...]]) -> Callable[[], None]:
    """A step as the backend's trainer compiles it: under XLA with TensorFlow and JAX, eager with torch."""
    import keras

    variables = [keras.Variable(keras.ops.full(shape, 0.5), name=f"v{i}") for i, shape in enumerate(shapes)]
    grads = [keras.ops.full(shape, 1e-3) for shape in shapes]
    opt.build(variables)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda: opt.apply(grads, variables), jit_compile=True)
    if keras.backend.backend() == "jax":
        import jax

        jitted = jax.jit(opt.stateless_apply, donate_argnums=(0, 2))
        states, params = [v.value for v in opt.variables], [v.value for v in variables]

        def step() -> None:
            nonlocal states, params
            params, states = jitted(states, grads, params)
            jax.block_until_ready(params)

        return step
    return lambda: opt.apply(grads, variables)


def measure() -> dict[str, dict[str, list[float]]]:
    import keras

    import onepass.keras

    found = {}
    for name, shapes in SHAPES.items():
        contenders = {
            "onepass": stepper(onepass.keras.AdamW(1e-3, weight_decay=1e-2), shapes),
            "keras.optimizers.AdamW": stepper(keras.optimizers.AdamW(1e-3, weight_decay=1e-2), shapes),
        }
        size = sum(keras.ops.size(keras.ops.zeros(shape)) for shape in shapes)
        found[name] = interleave(contenders, rounds=31, inner=max(1, 50_000 // int(size)))
    return found


measures = [against_keras]

if __name__ == "__main__":
    print(json.dumps(measure()))
