"""JAX: a jitted step; optax, and `onepass.jax`, whose optimizers are optax's transformations too."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import onepass.jax
from onepass.functional import init, update
from onepass.study.airfoil import Array
from onepass.study.frameworks.experiment import LR, Form, Framework, Trainer, forms


def mse(params: Any, features: Any, targets: Any) -> Any:
    return jnp.mean((features @ params["w"] + params["b"] - targets) ** 2)


class Jitted(Trainer):
    """A step that is compiled whole."""

    params: Any
    state: Any

    def begin(self, params: Any) -> Any:
        raise NotImplementedError

    def advance(self, params: Any, state: Any, features: Any, targets: Any) -> Any:
        raise NotImplementedError

    def __init__(self, form: Form):
        self.form = form
        self.compiled = jax.jit(self.advance)

    def start(self, weight: Array, bias: Array) -> None:
        self.params = {"w": jnp.asarray(weight), "b": jnp.asarray(bias)}
        self.state = self.begin(self.params)

    def step(self, features: Array, targets: Array) -> None:
        self.params, self.state = self.compiled(self.params, self.state, features, targets)

    def weights(self) -> tuple[Array, Array]:
        return np.asarray(self.params["w"]), np.asarray(self.params["b"])


class Scratch(Jitted):
    """`onepass.functional` under jit."""

    def begin(self, params: Any) -> Any:
        return init(params, self.form.optimizer, lr=LR, eps=self.form.eps)

    def advance(self, params: Any, state: Any, features: Any, targets: Any) -> Any:
        grads = jax.grad(lambda *given: mse(*given) / 2)(params, features, targets)
        return update(params, grads, state)


def optax_yogi(lr: float, eps: float) -> Any:
    return optax.chain(optax.scale_by_yogi(eps=eps, initial_accumulator_value=0.0), optax.scale_by_learning_rate(lr))


MAKERS = {
    "optax": {"adam": optax.adam, "yogi": optax_yogi},
    "onepass.jax": {"adam": onepass.jax.adam, "yogi": onepass.jax.yogi},
}


class Concise(Jitted):
    """A gradient transformation. Yogi's states start at zero in both, optax's being given so."""

    def __init__(self, form: Form):
        make = MAKERS[form.by][form.optimizer]
        self.transformation = make(LR, eps=form.eps)
        super().__init__(form)

    def begin(self, params: Any) -> Any:
        return self.transformation.init(params)

    def advance(self, params: Any, state: Any, features: Any, targets: Any) -> Any:
        updates, state = self.transformation.update(jax.grad(mse)(params, features, targets), state, params)
        return optax.apply_updates(params, updates), state


FRAMEWORK = Framework(
    "JAX",
    ("jax", "optax"),
    forms(Scratch, ("optax", ("adam", "yogi"), Concise), ("onepass.jax", ("adam", "yogi"), Concise)),
)
