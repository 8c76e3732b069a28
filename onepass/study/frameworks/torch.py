"""torch: `torch.optim`, and the classes of `onepass`, which stand in for its own."""

from __future__ import annotations

import torch
from torch import nn

import onepass
from onepass.functional import init, update
from onepass.study.airfoil import Array
from onepass.study.frameworks.experiment import LR, Form, Framework, Trainer, forms


class Scratch(Trainer):
    """`onepass.functional` on tensors, the gradient by autograd."""

    def __init__(self, form: Form):
        self.form = form

    def start(self, weight: Array, bias: Array) -> None:
        self.params = {"w": torch.tensor(weight), "b": torch.tensor(bias)}
        self.state = init(self.params, self.form.optimizer, lr=LR, eps=self.form.eps)

    def step(self, features: Array, targets: Array) -> None:
        params = {name: p.requires_grad_() for name, p in self.params.items()}
        outputs = torch.from_numpy(features) @ params["w"] + params["b"]
        loss = (outputs - torch.from_numpy(targets)).square().mean() / 2
        grads = dict(zip(params, torch.autograd.grad(loss, tuple(params.values())), strict=True))
        with torch.no_grad():
            self.params, self.state = update(params, grads, self.state)

    def weights(self) -> tuple[Array, Array]:
        return self.params["w"].numpy(), self.params["b"].numpy()


CLASSES = {"torch.optim": {"adam": torch.optim.Adam}, "onepass": {"adam": onepass.Adam, "yogi": onepass.Yogi}}


class Concise(Trainer):
    """`torch.nn.Linear` with an optimizer class."""

    def __init__(self, form: Form):
        self.form = form

    def start(self, weight: Array, bias: Array) -> None:
        self.model = nn.Linear(len(weight), 1)
        with torch.no_grad():
            self.model.weight.copy_(torch.from_numpy(weight.T))
            self.model.bias.copy_(torch.from_numpy(bias))
        made = CLASSES[self.form.by][self.form.optimizer]
        self.optimizer = made(self.model.parameters(), lr=LR, eps=self.form.eps)

    def step(self, features: Array, targets: Array) -> None:
        self.optimizer.zero_grad()
        nn.functional.mse_loss(self.model(torch.from_numpy(features)), torch.from_numpy(targets)).backward()
        self.optimizer.step()

    def weights(self) -> tuple[Array, Array]:
        return self.model.weight.detach().numpy().T, self.model.bias.detach().numpy()


FRAMEWORK = Framework(
    "torch",
    ("torch",),
    forms(Scratch, ("torch.optim", ("adam",), Concise), ("onepass", ("adam", "yogi"), Concise)),
)
