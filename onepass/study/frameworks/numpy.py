"""NumPy: the gradient by hand."""

from __future__ import annotations

from onepass.functional import init, update
from onepass.study.airfoil import Array
from onepass.study.frameworks.experiment import LR, Form, Framework, Trainer, forms


class Scratch(Trainer):
    """`onepass.functional` on NumPy's arrays."""

    def __init__(self, form: Form):
        self.form = form

    def start(self, weight: Array, bias: Array) -> None:
        self.params = {"w": weight, "b": bias}
        self.state = init(self.params, self.form.optimizer, lr=LR, eps=self.form.eps)

    def step(self, features: Array, targets: Array) -> None:
        error = (features @ self.params["w"] + self.params["b"] - targets) / len(features)
        grads = {"w": features.T @ error, "b": error.sum(axis=0)}
        self.params, self.state = update(self.params, grads, self.state)

    def weights(self) -> tuple[Array, Array]:
        return self.params["w"], self.params["b"]


FRAMEWORK = Framework("NumPy", ("numpy",), forms(Scratch))
