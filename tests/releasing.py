"""A model that holds what gradient release has to cope with, and how it is trained."""

import torch

import onepass
from onepass import schedules


def make_model(dtype=torch.float32):
    """A matrix is used twice, a layer is frozen, and one is used in every other step only (see `loss_of`)."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {name: torch.nn.Linear(6, 6) for name in ("first", "twice", "frozen", "sometimes")}
        | {"last": torch.nn.Linear(6, 2)}
    )
    model["twin"] = torch.nn.Linear(6, 6)
    model["twin"].weight = model["twice"].weight
    model["frozen"].requires_grad_(False)
    return model.to(dtype)


def loss_of(model, t):
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(t)).to(model["last"].weight.dtype)
    for name in ("first", "twice", "frozen", "twin", *(["sometimes"] if t % 2 else []), "last"):
        x = model[name](x).tanh()
    return x.square().mean() + x.sum().sin()


def train(model, opt, steps=range(9), accumulate=1, scheduler=None):
    for t in steps:
        opt.zero_grad()
        for i in range(accumulate):
            (loss_of(model, t + 100 * i) / accumulate).backward()
        opt.step()
        if scheduler:
            scheduler.step()


def everything(model, opt):
    """All that training has made, but the gradients."""
    states = opt.state_dict()
    return [p.detach() for p in model.parameters()], states["state"], states["param_groups"]


def assert_same(ours, theirs):
    values, states, groups = ours
    expected, their_states, their_groups = theirs
    assert all(torch.equal(p, q) for p, q in zip(values, expected, strict=True))
    assert states.keys() == their_states.keys()
    for key, state in states.items():
        assert state.keys() == their_states[key].keys()
        assert all(torch.equal(state[name], their_states[key][name]) for name in state)
    assert groups == their_groups


def make(model):
    return onepass.NAdam(model.parameters(), lr=schedules.linear(0.05, 0.0, steps=20), weight_decay=0.1)
