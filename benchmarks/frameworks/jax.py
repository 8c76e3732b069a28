"""JAX: a jitted step of ours against optax's own, parameters and states donated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import optax

import onepass.jax
from benchmarks.runner import Result, compare, interleave

PACKAGES = ("jax", "jaxlib", "optax")

SHAPES = {
    "16 M float32 parameters in 4 arrays": [(2**22,)] * 4,
    "0.2 M in 100 arrays": [(2000,)] * 100,
    "1,600 in 8 arrays": [(200,)] * 8,
}
PAIRS = {
    "AdamW": (onepass.jax.adamw(1e-3, weight_decay=1e-2), "optax.adamw", optax.adamw(1e-3, weight_decay=1e-2), 1.05),
    "Adam": (onepass.jax.adam(1e-3), "optax.adam", optax.adam(1e-3), None),
    "momentum": (onepass.jax.momentum(1e-3), "optax.sgd", optax.sgd(1e-3, momentum=0.9), None),
    "RAdam": (onepass.jax.radam(1e-3), "optax.radam", optax.radam(1e-3), None),
}


def stepper(tx: optax.GradientTransformation, shapes: Sequence[tuple[int, ...]]) -> Callable[[], None]:
    params = [jnp.full(shape, 0.5) for shape in shapes]
    grads = [jnp.full(shape, 1e-3) for shape in shapes]
    state = tx.init(params)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    jitted = jax.jit(step, donate_argnums=(0, 1))

    def run() -> None:
        nonlocal params, state
        params, state = jitted(params, state, grads)
        jax.block_until_ready(params)

    return run


def against_optax() -> Iterator[Result]:
    for name, (ours, called, theirs, target) in PAIRS.items():
        for measure, shapes in SHAPES.items():
            if target is None and len(shapes) != 4:
                continue
            contenders = {"onepass": stepper(ours, shapes), called: stepper(theirs, shapes)}
            size = sum(shape[0] for shape in shapes)
            # The first steps differ: RAdam has not yet begun to adapt.
            times = interleave(contenders, rounds=51, warmup=8, inner=max(1, 400_000 // size))
            yield compare(f"JAX: {name} under jit, {measure}", times, "onepass", called, target)


measures = [against_optax]
