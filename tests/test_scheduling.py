"""Schedules in parameter groups: what they do to the step, to checkpoints, and beside torch's schedulers."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from helpers import parameters, set_gradients
from torch.optim import lr_scheduler

import onepass
from onepass import decay
from onepass.schedules import constant, cosine, linear, one_cycle

ALL = onepass.list_optimizers()


def values(schedule, count):
    return [schedule(t) for t in range(1, count + 1)]


def run(opt, params, count, seed=1, change=None):
    """Take steps on random gradients; the values of the first group after each."""
    generator = torch.Generator().manual_seed(seed)
    seen = []
    for t in range(1, count + 1):
        set_gradients(params, generator)
        if change:
            change(opt.param_groups, t)
        opt.step()
        seen.append({key: value for key, value in opt.param_groups[0].items() if key != "params"})
    return seen


def assert_equal(ours, theirs):
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ALL)
def test_every_optimizer_follows_a_learning_rate_as_if_it_were_set_by_hand(name):
    schedule = linear(1e-3, 1e-2, steps=4).then(cosine(1e-2, 0.0, steps=6))
    ours, theirs = parameters(), parameters()
    seen = run(onepass.create(name, ours, lr=schedule), ours, 12)

    def by_hand(groups, t):
        groups[0]["lr"] = schedule(t)

    run(onepass.create(name, theirs, lr=0.5), theirs, 12, change=by_hand)
    assert [group["lr"] for group in seen] == values(schedule, 12)
    assert_equal(ours, theirs)


def test_weight_decay_is_scheduled_on_its_own():
    schedule = linear(0.0, 0.5, steps=5)
    params = parameters()
    expected = [p.detach().numpy().copy() for p in params]
    opt = onepass.AdamW(params, lr=0.01, weight_decay=schedule)
    assert opt.param_groups[0]["weight_decay"] == 0.0
    seen = run(opt, params, 8)
    assert {group["lr"] for group in seen} == {0.01}

    generator = torch.Generator().manual_seed(1)
    m, v = ([np.zeros_like(p) for p in expected] for _ in range(2))
    for t in range(1, 9):
        weight_decay = min(0.1 * (t - 1), 0.5)
        for i, p in enumerate(expected):
            g = torch.randn(p.shape, generator=generator, dtype=torch.float64).numpy()
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g * g
            shrunk = p * (1 - 0.01 * weight_decay)
            expected[i] = shrunk - 0.01 * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
    for p, q in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q, rtol=1e-12)


def test_betas_and_momentum_are_scheduled_like_torchs_one_cycle():
    ours, theirs = parameters(), parameters()
    lr, first = one_cycle(0.01, steps=15), one_cycle(0.85, steps=15, start=0.95, end=0.95)
    run(onepass.Adam(ours, lr=lr, betas=(first, 0.99)), ours, 15)
    other = torch.optim.Adam(theirs, lr=0.01, betas=(0.9, 0.99))
    scheduler = lr_scheduler.OneCycleLR(other, max_lr=0.01, total_steps=15)
    generator = torch.Generator().manual_seed(1)
    for t in range(15):
        set_gradients(theirs, generator)
        other.step()
        if t < 14:
            scheduler.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
    params = parameters()
    seen = run(onepass.SGD(params, lr=0.1, momentum=first), params, 15)
    assert [group["momentum"] for group in seen] == values(first, 15)


def test_a_group_has_its_own_schedule_or_number_and_inherits_the_rest():
    a, b, c, _ = parameters()
    opt = onepass.AdamW(
        [{"params": [a]}, {"params": [b], "lr": 0.5}, {"params": [c], "lr": constant(0.2), "weight_decay": 0.0}],
        lr=linear(0.1, 0.2, steps=10),
        weight_decay=linear(0.3, 0.4, steps=10),
    )
    run(opt, [a, b, c], 2)
    first, second, third = opt.param_groups
    assert (first["lr"], second["lr"], third["lr"]) == (pytest.approx(0.11), 0.5, 0.2)
    assert [set(group["schedules"]) for group in opt.param_groups] == [{"lr", "weight_decay"}, {"weight_decay"}, {"lr"}]


def test_a_transforms_hyperparameter_can_be_scheduled_in_a_group():
    params = parameters()
    group = {"params": params, "clip_value_limit": linear(0.5, 1.0, steps=2)}
    opt = onepass.SGD([group], lr=1.0, transforms=[onepass.clip_value(5.0)])
    for limit in (0.5, 0.75, 1.0):
        before = [p.detach().clone() for p in params]
        run(opt, params, 1)
        assert max((p - q).abs().max().item() for p, q in zip(params, before, strict=True)) == pytest.approx(limit)


def test_a_schedule_assigned_later_starts_at_the_next_step():
    params = parameters()
    opt = onepass.AdamW(params, lr=0.1)
    run(opt, params, 3)
    opt.param_groups[0]["lr"] = linear(1.0, 2.0, steps=4)
    assert [group["lr"] for group in run(opt, params, 3)] == [1.0, 1.25, 1.5]
    opt.param_groups[0]["betas"] = (constant(0.5), 0.9)
    opt.param_groups[0]["lr"] = constant(0.3)
    seen = run(opt, params, 1)[0]
    assert (seen["lr"], seen["betas"]) == (0.3, (0.5, 0.9))
    del opt.param_groups[0]["schedules"]["lr"]
    opt.param_groups[0]["lr"] = 0.7
    assert run(opt, params, 1)[0]["lr"] == 0.7
    opt.param_groups[0]["lr"] = linear(0.0, -1.0, steps=4)
    with pytest.raises(ValueError, match=r"lr must lie in .* and -1 does not"):
        opt.step()


@pytest.mark.parametrize("backend", [None, "reference"])
def test_resuming_is_bit_equal(backend):
    def make(params):
        return onepass.AdamW(
            params, lr=linear(0.0, 0.1, steps=5).then(cosine(0.1, 0.0, steps=15)), betas=(one_cycle(0.8, 20), 0.99),
            weight_decay=decay.independent(0.1), backend=backend,
        )  # fmt: skip

    whole, first = parameters(), parameters()
    run(make(whole), whole, 8)
    opt = make(first)
    run(opt, first, 8)
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    second = [torch.nn.Parameter(p.detach().clone()) for p in first]
    resumed = onepass.AdamW(second, lr=0.3, backend=backend)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(opt)
    third = copied.param_groups[0]["params"]
    unpickled = pickle.loads(pickle.dumps(opt))
    fourth = unpickled.param_groups[0]["params"]
    for each, params in ((opt, first), (resumed, second), (copied, third), (unpickled, fourth)):
        assert [group["schedule_step"] for group in run(each, params, 6, seed=2)] == [9, 10, 11, 12, 13, 14]
        assert_equal(params, first)
    assert opt.param_groups[0]["lr_peak"] == 0.1


def test_a_checkpoint_without_the_schedule_says_so():
    source, target = parameters(), parameters()
    plain = torch.optim.AdamW(source, lr=0.25)
    run(plain, source, 2)
    opt = onepass.AdamW(target, lr=cosine(0.1, 0.0, steps=10))
    with pytest.warns(UserWarning, match=r"no schedule for lr, which had one: it stays 0\.25.*group\['lr'\]"):
        opt.load_state_dict(plain.state_dict())
    assert [group["lr"] for group in run(opt, target, 2)] == [0.25, 0.25]


def test_a_checkpoint_without_the_hyperparameter_leaves_the_constructors_schedule():
    params = parameters()
    opt = onepass.SGD(params, momentum=linear(0.5, 0.9, steps=4))
    old = opt.state_dict()
    for key in ("momentum", "schedules", "schedule_step"):
        del old["param_groups"][0][key]
    opt.load_state_dict(old)
    assert opt.param_groups[0]["momentum"] == 0.5
    assert run(opt, params, 2)[1]["momentum"] == pytest.approx(0.6)


def test_torchs_schedulers_cannot_fight_silently():
    params = parameters()
    opt = onepass.AdamW(params, lr=linear(0.1, 0.2, steps=10), weight_decay=0.1)
    scheduler = lr_scheduler.ExponentialLR(opt, gamma=0.5)
    run(opt, params, 1)
    scheduler.step()
    before = [p.detach().clone() for p in params]
    with pytest.raises(ValueError, match=r"AdamW: lr follows linear\(.*torch scheduler.*has set it to 0\.05 meanwhile"):
        run(opt, params, 1)
    assert_equal(params, before)
    del opt.param_groups[0]["schedules"]["lr"]
    assert run(opt, params, 1)[0]["lr"] == 0.05


def test_torchs_schedulers_go_on_beside_a_schedule_of_something_else():
    params = parameters()
    opt = onepass.AdamW(params, lr=0.1, weight_decay=linear(0.0, 1.0, steps=10))
    scheduler = lr_scheduler.ExponentialLR(opt, gamma=0.5)
    for t in range(4):
        group = run(opt, params, 1)[0]
        assert (group["lr"], group["weight_decay"]) == (pytest.approx(0.1 * 0.5**t), pytest.approx(t / 10))
        scheduler.step()


def test_a_step_that_is_skipped_does_not_count():
    params = parameters()
    opt = onepass.SGD(params, lr=linear(1.0, 2.0, steps=4), skip_nonfinite=True)
    run(opt, params, 2)
    params[0].grad[0] = math.nan
    opt.step()
    opt.found_inf = torch.tensor(1.0)
    opt.step()
    del opt.found_inf
    assert (opt.skipped_steps, opt.param_groups[0]["schedule_step"]) == (1, 2)
    assert run(opt, params, 1)[0]["lr"] == 1.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: onepass.SGD(p, lr=linear(0.1, -0.1, steps=5)), "lr must lie in .* and -0.1 does not"),
        (
            lambda p: onepass.Adam(p, betas=(0.9, linear(0.9, 1.0, steps=5))),
            r"betas\[1\] must lie in .* and 1 does not",
        ),
        (
            lambda p: onepass.SGD(p, nesterov=True, momentum=linear(0.0, 0.9, steps=5)),
            "nesterov=True needs momentum > 0",
        ),
        (lambda p: onepass.Ranger(p, k=linear(5, 6, steps=5)), r"k must lie in an integer in .* and 5\.2 does not"),
        (lambda p: onepass.SGD([{"params": p, "lr": constant(-1.0)}]), "lr must lie in .* and -1 does not"),
    ],
)
def test_what_a_schedule_will_come_to_is_checked_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make(parameters())


def test_ranger_takes_a_schedule_of_whole_numbers():
    params = parameters()
    opt = onepass.Ranger(params, k=constant(5, steps=2).then(constant(6)))
    assert [group["k"] for group in run(opt, params, 3)] == [5.0, 5.0, 6.0]


@pytest.mark.parametrize("assigned", [False, True])
def test_independent_decay_measures_against_the_height_of_the_schedule_from_the_start(assigned):
    params = parameters()
    rising = linear(0.1, 0.4, steps=3)
    opt = onepass.AdamW(params, lr=0.05 if assigned else rising, weight_decay=decay.independent(0.2))
    if assigned:
        opt.param_groups[0]["lr"] = rising
    for share in (0.25, 0.5, 0.75, 1.0):
        before = [p.detach().clone() for p in params]
        for p in params:
            p.grad = torch.zeros_like(p)
        opt.step()
        for p, q in zip(params, before, strict=True):
            torch.testing.assert_close(p, q * (1 - 0.2 * share), rtol=1e-13, atol=0)


def test_a_transform_and_a_form_of_decay_take_schedules():
    params = parameters()
    opt = onepass.AdamW(
        params,
        lr=linear(0.0, 0.1, steps=4),
        weight_decay=decay.independent(linear(0.0, 0.4, steps=4)),
        transforms=[onepass.clip_norm(linear(1.0, 3.0, steps=2))],
    )
    seen = run(opt, params, 3)
    assert [group["clip_norm_max_norm"] for group in seen] == [1.0, 2.0, 3.0]
    assert [group["weight_decay"] for group in seen] == pytest.approx([0.0, 0.1, 0.2])
    assert (seen[0]["decay"], seen[0]["lr_peak"]) == ("independent", 0.1)
    with pytest.raises(ValueError, match=r"clip_norm: max_norm must lie in .* and 0 does not"):
        onepass.clip_norm(linear(0.0, 1.0, steps=2))
