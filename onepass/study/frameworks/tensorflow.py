"""TensorFlow and Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import onepass.keras
from onepass.functional import init, update
from onepass.study.airfoil import Array
from onepass.study.frameworks.experiment import LR, Form, Framework, Trainer, forms


@tf.function
def step(params: Any, state: Any, features: Any, targets: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(params)
        loss = tf.reduce_mean((features @ params["w"] + params["b"] - targets) ** 2) / 2
    return update(params, tape.gradient(loss, params), state)


class Scratch(Trainer):
    """`onepass.functional` under ``tf.function``, the gradient by a tape."""

    def __init__(self, form: Form):
        self.form = form

    def start(self, weight: Array, bias: Array) -> None:
        self.params = {"w": tf.constant(weight), "b": tf.constant(bias)}
        self.state = init(self.params, self.form.optimizer, lr=LR, eps=self.form.eps)

    def step(self, features: Array, targets: Array) -> None:
        self.params, self.state = step(self.params, self.state, tf.constant(features), tf.constant(targets))

    def weights(self) -> tuple[Array, Array]:
        return self.params["w"].numpy(), self.params["b"].numpy()


CLASSES = {
    "keras.optimizers": {"adam": keras.optimizers.Adam},
    "onepass.keras": {"adam": onepass.keras.Adam, "yogi": onepass.keras.Yogi},
}


class Concise(Trainer):
    """A `keras.layers.Dense` with a Keras optimizer."""

    def __init__(self, form: Form):
        given = {"epsilon" if form.by == "keras.optimizers" else "eps": form.eps}
        self.optimizer = CLASSES[form.by][form.optimizer](learning_rate=LR, **given)
        self.model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
        self.model.compile(optimizer=self.optimizer, loss="mse")
        self.optimizer.build(self.model.trainable_variables)
        self.fresh = [np.array(variable) for variable in self.optimizer.variables]

    def start(self, weight: Array, bias: Array) -> None:
        self.model.set_weights([weight, bias])
        for variable, value in zip(self.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)

    def step(self, features: Array, targets: Array) -> None:
        self.model.train_on_batch(features, targets)

    def weights(self) -> tuple[Array, Array]:
        weight, bias = self.model.get_weights()
        return weight, bias


FRAMEWORK = Framework(
    "TensorFlow",
    ("tensorflow", "tensorflow-cpu", "keras"),
    forms(Scratch, ("keras.optimizers", ("adam",), Concise), ("onepass.keras", ("adam", "yogi"), Concise)),
)
