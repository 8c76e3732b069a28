"""JAX: arrays under ``jit``, ``vmap`` and ``grad``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp

from onepass.functional.api import State
from onepass.functional.library import Library


class Jax(Library):
    """JAX's arrays. Step values are computed in float64, whether or not the program at large may use it."""

    name = "JAX"
    xp = jnp

    def dtype(self, x: Any) -> str:
        return jnp.dtype(x.dtype).name

    def cast(self, x: Any, dtype: str) -> Any:
        return x.astype(dtype)

    def filled(self, x: Any, value: float, dtype: str) -> Any:
        return jnp.full_like(x, value, dtype=dtype)

    def is_traced(self, x: Any) -> bool:
        return isinstance(x, jax.core.Tracer)

    def float64(self) -> AbstractContextManager[Any]:
        return jax.enable_x64(True)

    def step_value(self, x: Any) -> Any:
        return jnp.asarray(x).astype("float64")

    def cond(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        return jax.lax.cond(condition, yes, no)


def library(package: str) -> Library:
    """The library that serves arrays of this package."""
    return Jax()


jax.tree_util.register_pytree_with_keys(
    State,
    lambda state: (
        [(jax.tree_util.GetAttrKey(name), getattr(state, name)) for name in ("step", "tensors", "reports")],
        state.recipe,
    ),
    lambda recipe, children: State(recipe, *children),
)
