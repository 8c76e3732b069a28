"""MXNet's ``mx.np`` arrays, under its autograd and in Gluon."""

from __future__ import annotations

import mxnet as mx
from mxnet import autograd, gluon

from onepass.functional import init, update
from onepass.study.airfoil import Array
from onepass.study.frameworks.experiment import FUNCTIONAL, LR, Form, Framework, Trainer, forms

mx.npx.set_np()


class Scratch(Trainer):
    """`onepass.functional` on arrays, the gradient by autograd."""

    def __init__(self, form: Form):
        self.form = form

    def start(self, weight: Array, bias: Array) -> None:
        self.params = {"w": mx.np.array(weight), "b": mx.np.array(bias)}
        self.state = init(self.params, self.form.optimizer, lr=LR, eps=self.form.eps)

    def step(self, features: Array, targets: Array) -> None:
        for p in self.params.values():
            p.attach_grad()
        with autograd.record():
            outputs = mx.np.dot(mx.np.array(features), self.params["w"]) + self.params["b"]
            loss = ((outputs - mx.np.array(targets)) ** 2).mean() / 2
        loss.backward()
        grads = {name: p.grad for name, p in self.params.items()}
        self.params, self.state = update(self.params, grads, self.state)

    def weights(self) -> tuple[Array, Array]:
        return self.params["w"].asnumpy(), self.params["b"].asnumpy()


class Concise(Trainer):
    """`gluon.nn.Dense`, its parameters stepped in place."""

    def __init__(self, form: Form):
        self.form = form

    def start(self, weight: Array, bias: Array) -> None:
        self.model = gluon.nn.Dense(1, in_units=len(weight))
        self.model.initialize()
        self.model.weight.set_data(mx.np.array(weight.T))
        self.model.bias.set_data(mx.np.array(bias))

    def step(self, features: Array, targets: Array) -> None:
        with autograd.record():
            outputs = self.model(mx.np.array(features))
            loss = ((outputs - mx.np.array(targets)) ** 2).mean()
        loss.backward()
        self.apply()

    def apply(self) -> None:
        raise NotImplementedError

    def weights(self) -> tuple[Array, Array]:
        return self.model.weight.data().asnumpy().T, self.model.bias.data().asnumpy()


class Own(Concise):
    """By `gluon.Trainer`."""

    def start(self, weight: Array, bias: Array) -> None:
        super().start(weight, bias)
        given = {"learning_rate": LR, "epsilon": self.form.eps}
        self.trainer = gluon.Trainer(self.model.collect_params(), self.form.optimizer, given)

    def apply(self) -> None:
        self.trainer.step(1)


class Ours(Concise):
    """By `onepass.functional`, whose results are put back into the layer."""

    def start(self, weight: Array, bias: Array) -> None:
        super().start(weight, bias)
        self.held = self.model.collect_params()
        self.state = init(
            {name: p.data() for name, p in self.held.items()}, self.form.optimizer, lr=LR, eps=self.form.eps
        )

    def apply(self) -> None:
        params = {name: p.data() for name, p in self.held.items()}
        new, self.state = update(params, {name: p.grad() for name, p in self.held.items()}, self.state)
        for name, p in self.held.items():
            p.set_data(new[name])


FRAMEWORK = Framework(
    "MXNet",
    ("mxnet",),
    forms(Scratch, ("gluon.Trainer", ("adam",), Own), (FUNCTIONAL, ("adam", "yogi"), Ours)),
)
