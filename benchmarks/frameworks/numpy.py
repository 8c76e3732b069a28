"""NumPy: the pure functions against a loop written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks.runner import Result, compare, interleave
from onepass.functional import init, update

PACKAGES = ()

SHAPES = {
    "AdamW, 4 M float32 parameters in 4 arrays": [(2**20,)] * 4,
    "AdamW, 0.2 M in 100 arrays": [(2000,)] * 100,
    "AdamW, 1,600 in 8 arrays": [(200,)] * 8,
}


def ours(shapes: Sequence[tuple[int, ...]]) -> Callable[[], None]:
    params = [np.full(shape, 0.5, np.float32) for shape in shapes]
    grads = [np.full(shape, 1e-3, np.float32) for shape in shapes]
    state = init(params, "adamw")

    def step() -> None:
        nonlocal params, state
        params, state = update(params, grads, state)

    return step


def by_hand(shapes: Sequence[tuple[int, ...]]) -> Callable[[], None]:
    params = [np.full(shape, 0.5, np.float32) for shape in shapes]
    grads = [np.full(shape, 1e-3, np.float32) for shape in shapes]
    m, v = [np.zeros_like(p) for p in params], [np.zeros_like(p) for p in params]
    t, lr, b1, b2, eps, weight_decay = 0, 1e-3, 0.9, 0.999, 1e-8, 1e-2

    def step() -> None:
        nonlocal t
        t += 1
        for i, g in enumerate(grads):
            m[i] = b1 * m[i] + (1 - b1) * g
            v[i] = b2 * v[i] + (1 - b2) * g * g
            m_hat, v_hat = m[i] / (1 - b1**t), v[i] / (1 - b2**t)
            params[i] = params[i] * (1 - lr * weight_decay) - lr * m_hat / (np.sqrt(v_hat) + eps)

    return step


def against_a_loop() -> Iterator[Result]:
    for measure, shapes in SHAPES.items():
        contenders = {"onepass": ours(shapes), "a NumPy loop by hand": by_hand(shapes)}
        times = interleave(contenders, rounds=31, inner=max(1, 200_000 // sum(map(np.prod, shapes))))
        yield compare(f"NumPy: {measure}", times, "onepass", "a NumPy loop by hand", None)


measures = [against_a_loop]
