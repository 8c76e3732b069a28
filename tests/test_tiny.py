"""The two-second test: one model, ten steps, every optimizer."""

import pytest
import torch

import onepass


@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_ten_steps_lower_the_loss(name):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    x = torch.randn(32, 4)
    y = x.sum(1, keepdim=True)
    opt = onepass.create(name, model.parameters())

    def closure():
        opt.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        return loss

    first = closure().item()
    for _ in range(10):
        opt.step(closure)
    assert closure().item() < first
