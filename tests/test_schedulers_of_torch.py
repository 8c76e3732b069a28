"""Torch's schedulers and its averaged models drive these optimizers as they drive torch's own."""

import inspect

import pytest
import torch
from helpers import parameters, relative_error, set_gradients
from torch.optim import lr_scheduler, swa_utils

import onepass

STEPS = 30

SCHEDULERS = {
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, [lambda t: 0.9**t, lambda t: 1 / (1 + t)]),
    "MultiplicativeLR": lambda opt: lr_scheduler.MultiplicativeLR(opt, lambda t: 0.95),
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, step_size=7, gamma=0.3),
    "MultiStepLR": lambda opt: lr_scheduler.MultiStepLR(opt, milestones=[4, 11, 19], gamma=0.5),
    "ConstantLR": lambda opt: lr_scheduler.ConstantLR(opt, factor=0.2, total_iters=9),
    "LinearLR": lambda opt: lr_scheduler.LinearLR(opt, start_factor=0.1, total_iters=12),
    "ExponentialLR": lambda opt: lr_scheduler.ExponentialLR(opt, gamma=0.9),
    "PolynomialLR": lambda opt: lr_scheduler.PolynomialLR(opt, total_iters=20, power=2.0),
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=10, eta_min=1e-5),
    "CosineAnnealingWarmRestarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, T_0=4, T_mult=2),
    "ReduceLROnPlateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=2, factor=0.5),
    "CyclicLR": lambda opt: lr_scheduler.CyclicLR(opt, base_lr=1e-3, max_lr=1e-2, step_size_up=5),
    "OneCycleLR": lambda opt: lr_scheduler.OneCycleLR(opt, max_lr=[1e-2, 3e-2], total_steps=STEPS),
    "SequentialLR": lambda opt: lr_scheduler.SequentialLR(
        opt,
        [lr_scheduler.LinearLR(opt, start_factor=0.1, total_iters=5), lr_scheduler.CosineAnnealingLR(opt, T_max=20)],
        milestones=[5],
    ),
    "ChainedScheduler": lambda opt: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(opt, factor=0.5, total_iters=6), lr_scheduler.ExponentialLR(opt, gamma=0.9)]
    ),
    "SWALR": lambda opt: swa_utils.SWALR(opt, swa_lr=[1e-4, 2e-4], anneal_epochs=15),
}

OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "weight_decay": 1e-2},
    "AdamW": {"weight_decay": 0.1},
    "RMSprop": {"momentum": 0.9},
}

FOLLOWED = ("lr", "momentum", "betas")


def in_two_groups(params, lr=3e-3):
    return [{"params": params[:2], "lr": lr}, {"params": params[2:], "lr": 2 * lr}]


def advance(scheduler, t):
    # A plateau from the fifth step on.
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        scheduler.step(max(0.0, 5.0 - t))
    else:
        scheduler.step()


def drive(opt, scheduler, params, first=0, last=STEPS):
    """What the schedule made of the groups at every step from ``first`` to ``last``."""
    trajectory = []
    for t in range(first, last):
        set_gradients(params, torch.Generator().manual_seed(t))
        opt.step()
        trajectory.append([{key: group[key] for key in FOLLOWED if key in group} for group in opt.param_groups])
        advance(scheduler, t)
    return trajectory


def test_every_scheduler_of_torch_is_here():
    offered = {
        name
        for name, kind in vars(lr_scheduler).items()
        if inspect.isclass(kind) and issubclass(kind, lr_scheduler.LRScheduler) and name.strip("_") != "LRScheduler"
    }
    assert offered <= SCHEDULERS.keys()


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_scheduler_moves_our_optimizer_as_torchs(name, scheduler):
    ours, theirs = parameters(), parameters()
    mine = getattr(onepass, name)(in_two_groups(ours), **OPTIMIZERS[name])
    other = getattr(torch.optim, name)(in_two_groups(theirs), **OPTIMIZERS[name])
    start = [p.detach().clone() for p in ours]
    trajectory = drive(mine, SCHEDULERS[scheduler](mine), ours)
    assert trajectory == drive(other, SCHEDULERS[scheduler](other), theirs)
    assert any(now != trajectory[0] for now in trajectory)
    assert relative_error([p.detach() for p in ours], [p.detach() for p in theirs]) < 1e-12
    assert relative_error([p.detach() for p in ours], start) > 1e-4


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_schedule_resumes_bit_for_bit(scheduler):
    half = STEPS // 2
    whole, parts = parameters(), parameters()
    opt = onepass.AdamW(in_two_groups(whole), weight_decay=0.1)
    expected = drive(opt, SCHEDULERS[scheduler](opt), whole)

    opt = onepass.AdamW(in_two_groups(parts), weight_decay=0.1)
    schedule = SCHEDULERS[scheduler](opt)
    trajectory = drive(opt, schedule, parts, last=half)
    saved, position = opt.state_dict(), schedule.state_dict()

    opt = onepass.AdamW(in_two_groups(parts), weight_decay=0.1)
    schedule = SCHEDULERS[scheduler](opt)
    opt.load_state_dict(saved)
    schedule.load_state_dict(position)
    trajectory += drive(opt, schedule, parts, first=half)
    assert trajectory == expected
    assert all(torch.equal(p, q) for p, q in zip(parts, whole, strict=True))


@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_one_cycle_turns_the_momentum_of_every_optimizer_that_has_one(name):
    params = parameters()
    momentum = {"momentum": 0.9} if name in ("sgd", "rmsprop") else {}
    opt = onepass.create(name, params, **momentum)
    turns = "momentum" in opt.defaults or "betas" in opt.defaults
    assert turns == (name not in ("adadelta", "adagrad"))
    schedule = lr_scheduler.OneCycleLR(opt, max_lr=1e-2, total_steps=STEPS, cycle_momentum=turns)
    trajectory = drive(opt, schedule, params, last=STEPS - 1)
    if turns:
        seen = [group["betas"][0] if "betas" in group else group["momentum"] for (group,) in trajectory]
        assert max(seen) == pytest.approx(0.95)
        assert min(seen) == pytest.approx(0.85)


def averaged_run(make, average):
    """Train with an averaged model beside it from the tenth step on, as torch's documentation does."""
    torch.manual_seed(0)
    # No bias before the normalisation: its gradient would be rounding noise, which Adam blows up to full steps.
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8, bias=False), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)
    ).double()
    opt = make(model.parameters(), lr=0.01)
    averaged = swa_utils.AveragedModel(model, **average)
    swa = swa_utils.SWALR(opt, swa_lr=0.002, anneal_epochs=5)
    data = torch.randn(64, 4, dtype=torch.float64)
    for t in range(30):
        opt.zero_grad()
        (model(data) - data.sum(1, keepdim=True)).square().mean().backward()
        opt.step()
        if t >= 10:
            averaged.update_parameters(model)
            swa.step()
    swa_utils.update_bn([data], averaged)
    return [*averaged.parameters(), *averaged.buffers()], list(model.parameters())


@pytest.mark.parametrize("average", [{}, {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)}], ids=["mean", "ema"])
def test_averaged_models_are_those_of_torchs_optimizer(average):
    ours, mine = averaged_run(onepass.AdamW, average)
    theirs, other = averaged_run(torch.optim.AdamW, average)
    with torch.no_grad():
        assert relative_error([x.double() for x in ours], [x.double() for x in theirs]) < 1e-10
        assert relative_error(mine, other) < 1e-10
        assert relative_error(ours[:2], mine[:2]) > 1e-6
