"""Every optimizer as two pure functions, for any array library.

    state = init(params, "adamw", lr=3e-4, weight_decay=0.1)
    params, state = update(params, grads, state)

``params`` and ``grads`` are nested dicts, lists and tuples of arrays of NumPy, CuPy, torch, JAX, TensorFlow, Paddle or
MXNet; the library is recognised from the arrays, and only that one is imported. Nothing is written to: what was passed
in can be used again.
"""

from onepass.functional.api import State, init, update
from onepass.functional.recipe import list_rules

__all__ = ["State", "init", "list_rules", "update"]
