"""onepass for JAX: ``onepass.jax.adamw(3e-4, weight_decay=0.1)``, and every other rule, as optax has its own.

>>> import onepass.jax, optax
>>> tx = optax.chain(optax.clip_by_global_norm(1.0), onepass.jax.adamw(optax.linear_schedule(3e-4, 0.0, 1000)))
"""

from onepass.functional.optax import *  # noqa: F403
from onepass.functional.optax import __all__ as __all__
