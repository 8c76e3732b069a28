"""torch.compile: the same numbers with the optimizer outside or inside the region, and nothing compiled twice."""

import pytest
import torch
from torch._dynamo.utils import counters

import onepass

STEPS = 12


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def make(name, transforms=()):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    return model, onepass.create(name, model.parameters(), lr=0.01, weight_decay=0.1, transforms=transforms)


def loss_of(model, x):
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


def train(model, opt, take_step, schedule=None):
    """The losses and the last parameters; the learning rate is another one in every step."""
    losses = []
    for t in range(STEPS):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        losses.append(take_step(x).clone())
        if schedule:
            schedule.step()
        else:
            opt.param_groups[0]["lr"] *= 0.9
    return losses + [p.detach().clone() for p in model.parameters()]


def ordinary(model, opt, forward=None):
    def take_step(x):
        opt.zero_grad()
        loss = loss_of(forward or model, x)
        value = loss.detach()
        loss.backward()
        opt.step()
        return value

    return take_step


def eager(name, **more):
    model, opt = make(name, **more)
    return train(model, opt, ordinary(model, opt))


def same(ours, theirs):
    return all(torch.allclose(a, b, rtol=1e-12, atol=0) for a, b in zip(ours, theirs, strict=True))


def breaks_in_step():
    return sum(count for reason, count in counters["graph_break"].items() if "Optimizer.step" in reason)


@pytest.mark.parametrize("name", ["adamw", "ranger"])
def test_a_compiled_model_trains_as_the_eager_one(name):
    model, opt = make(name)
    assert same(train(model, opt, ordinary(model, opt, torch.compile(model, backend="aot_eager"))), eager(name))
    assert not counters["graph_break"]


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_a_compiled_step_breaks_the_graph_once_and_never_compiles_again(name, scheduled):
    model, opt = make(name)
    schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9) if scheduled else None
    take_step = torch.compile(ordinary(model, opt), backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        results = train(model, opt, take_step, schedule)
    assert same(results, eager(name))
    assert counters["stats"]["unique_graphs"] > 0
    assert breaks_in_step() == 1


def test_transforms_hooks_and_reports_survive_compilation():
    model, opt = make("adamw", transforms=[onepass.clip_norm(0.1)])
    called = []
    opt.register_step_post_hook(lambda *_: called.append(opt.last_grad_norm))
    results = train(model, opt, torch.compile(ordinary(model, opt), backend="eager"))
    assert same(results, eager("adamw", transforms=[onepass.clip_norm(0.1)]))
    assert len(set(called)) == STEPS
    assert breaks_in_step() == 1
