"""Schedules: the learning rate, and the momentum, of every step."""

import math

import pytest
import torch
from tiny import tiny_task
from torch import nn

import onepass
from onepass.study.errors import StudyError
from onepass.study.record import Settings
from onepass.study.schedule import make_schedule
from onepass.study.training import fit


def rates(name, steps=100, warmup=None, optimizer=None, also="lr"):
    optimizer = optimizer or onepass.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = make_schedule(name, optimizer, steps, warmup)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0][also])
        optimizer.step()
        schedule.step()
    return found


def test_constant_and_step_schedules():
    assert rates("constant") == [2.0] * 100
    assert rates("step") == pytest.approx([2.0] * 50 + [0.2] * 25 + [0.02] * 25)


def test_cosine_schedule():
    assert rates("cosine") == pytest.approx([1 + math.cos(math.pi * step / 100) for step in range(100)])


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_warmup_rises_to_the_schedule(name):
    rising, rest = rates(name, 100, warmup=0.2)[:20], rates(name, 100, warmup=0.2)[20:]
    assert rising == pytest.approx([2.0 * (step + 1) / 21 for step in range(20)])
    assert rest == pytest.approx(rates(name, 80))


def test_onecycle_is_super_convergence():
    found = rates("onecycle")
    assert found[0] == pytest.approx(2.0 / 25)
    assert max(found) == pytest.approx(2.0)
    assert found.index(max(found)) == 29
    assert found[-1] == pytest.approx(2.0 / 25 / 1e4)
    assert rates("onecycle", warmup=0.5).index(max(rates("onecycle", warmup=0.5))) == 49


def test_onecycle_cycles_momentum_the_other_way():
    weights = [nn.Parameter(torch.zeros(1))]
    momentum = rates("onecycle", also="momentum")
    assert (momentum[0], momentum[29], momentum[-1]) == pytest.approx((0.95, 0.85, 0.95))
    betas = rates("onecycle", optimizer=onepass.AdamW(weights), also="betas")
    assert betas[0] == pytest.approx((0.95, 0.999))
    assert betas[29] == pytest.approx((0.85, 0.999))
    assert set(rates("onecycle", optimizer=onepass.RMSprop(weights), also="momentum")) == {0}
    used = rates("onecycle", optimizer=onepass.RMSprop(weights, momentum=0.5), also="momentum")
    assert used[29] == pytest.approx(0.85)
    assert rates("onecycle", optimizer=onepass.Adagrad(weights, lr=1.0))[29] == pytest.approx(1.0)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("steps", [2, 3, 10])
def test_onecycle_of_any_length(steps, warmup):
    found = rates("onecycle", steps, warmup)
    assert all(0 < rate <= 2.0 for rate in found)
    with pytest.raises(StudyError, match="needs at least 2 steps, not 1"):
        rates("onecycle", 1, warmup)


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_schedules_of_few_steps(name, steps):
    assert all(0 < rate <= 2.0 for rate in rates(name, steps, warmup=0.9))


def test_a_run_follows_its_schedule():
    outcome = fit(tiny_task(), Settings("sgd", epochs=4, lr=0.1, schedule="step"))
    assert [epoch.lr for epoch in outcome.history] == pytest.approx([0.1, 0.1, 0.01, 0.001])
