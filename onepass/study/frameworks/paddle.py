"""Paddle."""

from __future__ import annotations

from typing import Any

import paddle

import onepass.paddle
from onepass.functional import init, update
from onepass.study.airfoil import Array
from onepass.study.frameworks.experiment import LR, Form, Framework, Trainer, forms


class Scratch(Trainer):
    """`onepass.functional` on tensors, the gradient by autograd."""

    def __init__(self, form: Form):
        self.form = form

    def start(self, weight: Array, bias: Array) -> None:
        self.params = {"w": paddle.to_tensor(weight), "b": paddle.to_tensor(bias)}
        self.state = init(self.params, self.form.optimizer, lr=LR, eps=self.form.eps)

    def step(self, features: Array, targets: Array) -> None:
        for p in self.params.values():
            p.stop_gradient = False
        outputs = paddle.to_tensor(features) @ self.params["w"] + self.params["b"]
        loss = ((outputs - paddle.to_tensor(targets)) ** 2).mean() / 2
        grads = dict(zip(self.params, paddle.grad(loss, list(self.params.values())), strict=True))
        with paddle.no_grad():
            self.params, self.state = update(self.params, grads, self.state)

    def weights(self) -> tuple[Array, Array]:
        return self.params["w"].numpy(), self.params["b"].numpy()


CLASSES = {
    "paddle.optimizer": {"adam": paddle.optimizer.Adam},
    "onepass.paddle": {"adam": onepass.paddle.Adam, "yogi": onepass.paddle.Yogi},
}


class Concise(Trainer):
    """`paddle.nn.Linear` with an optimizer class."""

    def __init__(self, form: Form):
        self.form = form

    def start(self, weight: Array, bias: Array) -> None:
        self.model = paddle.nn.Linear(len(weight), 1)
        self.model.weight.set_value(weight)
        self.model.bias.set_value(bias)
        made = CLASSES[self.form.by][self.form.optimizer]
        given: dict[str, Any] = {"epsilon" if self.form.by == "paddle.optimizer" else "eps": self.form.eps}
        self.optimizer = made(learning_rate=LR, parameters=self.model.parameters(), **given)

    def step(self, features: Array, targets: Array) -> None:
        outputs = self.model(paddle.to_tensor(features))
        paddle.nn.functional.mse_loss(outputs, paddle.to_tensor(targets)).backward()
        self.optimizer.step()
        self.optimizer.clear_grad()

    def weights(self) -> tuple[Array, Array]:
        return self.model.weight.numpy(), self.model.bias.numpy()


FRAMEWORK = Framework(
    "Paddle",
    ("paddlepaddle",),
    forms(Scratch, ("paddle.optimizer", ("adam",), Concise), ("onepass.paddle", ("adam", "yogi"), Concise)),
)
