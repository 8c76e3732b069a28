"""Schedules: their values, held against torch's where torch has them, their states and errors."""

import copy
import io
import itertools
import math
import pickle
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

import onepass
from onepass.schedules import Schedule, constant, cosine, from_state, linear, one_cycle, step, warmup_stable_decay

EVERY_KIND = [
    constant(0.5),
    constant(0.5, steps=3),
    linear(0.1, 0.9, steps=10),
    cosine(0.9, 0.1, steps=10),
    step(0.8, every=3),
    step(0.8, every=3, gamma=0.5, steps=7),
    one_cycle(0.5, steps=10),
    one_cycle(0.85, steps=10, start=0.95, end=0.95, shape="linear"),
    warmup_stable_decay(0.5, steps=10, warmup=2, decay=4, shape="sqrt"),
    linear(0.0, 0.5, steps=5).then(cosine(0.5, 0.0, steps=5)),
    0.1 * linear(0.0, 0.5, steps=5).then(constant(0.5)),
]


def values(schedule, count):
    return [schedule(t) for t in range(1, count + 1)]


def torch_values(make, steps, lr=1.0, key="lr", momentum=0.9):
    """What a torch scheduler sets the hyperparameter to at steps 1 to ``steps``."""
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=momentum)
    scheduler = make(opt)
    seen = []
    for _ in range(steps):
        seen.append(opt.param_groups[0][key])
        opt.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step()
    return seen


@pytest.mark.parametrize(
    ("ours", "theirs", "count"),
    [
        (linear(0.25, 0.75, steps=7), lambda o: lr_scheduler.LinearLR(o, 0.25, 0.75, total_iters=7), 12),
        (cosine(1.0, 0.1, steps=9), lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=9, eta_min=0.1), 10),
        (step(1.0, every=4, gamma=0.3), lambda o: lr_scheduler.StepLR(o, step_size=4, gamma=0.3), 15),
        (one_cycle(2.0, steps=20), lambda o: lr_scheduler.OneCycleLR(o, max_lr=2.0, total_steps=20), 20),
        (
            one_cycle(2.0, steps=17, start=0.5, end=0.01, rise=0.41, shape="linear"),
            lambda o: lr_scheduler.OneCycleLR(
                o, 2.0, 17, pct_start=0.41, anneal_strategy="linear", div_factor=4, final_div_factor=50
            ),
            17,
        ),
        (
            linear(0.1, 1.0, steps=5).then(cosine(1.0, 0.0, steps=10)),
            lambda o: lr_scheduler.SequentialLR(
                o, [lr_scheduler.LinearLR(o, 0.1, total_iters=5), lr_scheduler.CosineAnnealingLR(o, 10)], [5]
            ),
            15,
        ),
    ],
    ids=["linear", "cosine", "step", "one_cycle", "one_cycle_linear", "joined"],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")
def test_values_are_torchs_where_the_names_are(ours, theirs, count):
    assert values(ours, count) == pytest.approx(torch_values(theirs, count), rel=1e-12, abs=1e-15)


def test_momentum_cycles_as_in_torch():
    theirs = torch_values(lambda o: lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=20), 20, key="momentum")
    assert values(one_cycle(0.85, steps=20, start=0.95, end=0.95), 20) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("kind", [linear, cosine])
def test_a_glide_has_its_start_first_and_its_end_after_its_last_step_exactly(kind):
    # Values that (start - end) + end does not give back.
    falling = kind(0.3, 1e-17, steps=10)
    assert (falling(1), falling(11), falling(10**9)) == (0.3, 1e-17, 1e-17)
    assert falling(10) > 1e-17
    seen = values(falling, 11)
    assert all(a > b for a, b in itertools.pairwise(seen))
    assert kind(0.2, 0.1, steps=1)(1) == 0.2


def test_one_cycle_rises_to_its_peak_and_ends_at_its_last_step_exactly():
    cycle = one_cycle(0.3, steps=20, rise=0.25)
    assert (cycle(1), cycle(5), cycle(20), cycle(21)) == (0.3 / 25, 0.3, 0.3 / 25 / 1e4, 0.3 / 25 / 1e4)
    seen = values(cycle, 20)
    assert seen[:5] == sorted(seen[:5])
    assert seen[4:] == sorted(seen[4:], reverse=True)


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_warmup_stable_decay(shape):
    schedule = warmup_stable_decay(0.4, steps=20, warmup=3, decay=5, end=0.01, shape=shape)
    assert values(schedule, 3) == pytest.approx([0.1, 0.2, 0.3])
    assert values(schedule, 16)[3:] == [0.4] * 13
    seen = values(schedule, 21)[15:]
    assert seen[-1] == 0.01
    assert all(a > b for a, b in itertools.pairwise(seen))
    halfway = {"linear": 0.6, "cosine": (1 + math.cos(0.4 * math.pi)) / 2, "sqrt": 1 - math.sqrt(0.4)}[shape]
    assert schedule(18) == pytest.approx(0.01 + 0.39 * halfway)


def test_joined_schedules_count_from_one_again_and_nest():
    whole = constant(1.0, steps=2).then(linear(2.0, 4.0, steps=2)).then(step(8.0, every=1, gamma=0.5))
    assert values(whole, 7) == [1.0, 1.0, 2.0, 3.0, 8.0, 4.0, 2.0]
    assert whole == constant(1.0, steps=2).then(linear(2.0, 4.0, steps=2).then(step(8.0, every=1, gamma=0.5)))
    assert values(0.5 * whole, 4) == [0.5, 0.5, 1.0, 1.5]
    assert values(step(1.0, every=2, gamma=0.5, steps=3), 6) == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("schedule", EVERY_KIND, ids=repr)
def test_a_schedule_is_a_value(schedule):
    names = {name: getattr(onepass.schedules, name) for name in onepass.schedules.__all__}
    assert eval(repr(schedule), names) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == copy.deepcopy(schedule) == schedule
    assert hash(schedule) == hash(copy.copy(schedule))
    file = io.BytesIO()
    torch.save(schedule.to_state(), file)
    file.seek(0)
    assert from_state(torch.load(file, weights_only=True)) == schedule
    with pytest.raises(AttributeError):
        schedule.steps = 3


@pytest.mark.parametrize("schedule", EVERY_KIND, ids=repr)
def test_the_landmarks_hold_the_extremes(schedule):
    seen = values(schedule, 100)
    assert min(schedule.landmarks) <= min(seen)
    assert max(seen) <= max(schedule.landmarks)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: linear("0.1", 1.0, steps=3), TypeError, r"linear: start takes a number, not '0\.1'"),
        (lambda: cosine(0.1, math.nan, steps=3), ValueError, "cosine: end must be finite, and nan"),
        (lambda: linear(0.1, 1.0, steps=0), ValueError, "linear: steps is a count of steps, 1 or more, not 0"),
        (lambda: constant(0.1, steps=2.5), ValueError, r"constant: steps .* not 2\.5"),
        (lambda: step(0.1, every=3, gamma=1.5), ValueError, r"step: gamma must lie in \[0, 1\], and 1\.5"),
        (lambda: one_cycle(0.1, steps=3), ValueError, r"one_cycle: rise=0\.3 of 3 steps"),
        (lambda: one_cycle(0.1, steps=30, shape="sqrt"), ValueError, "one_cycle: shape is one of .* not 'sqrt'"),
        (lambda: warmup_stable_decay(1, 5, 3, 3), ValueError, "warmup=3 and decay=3 are more than steps=5"),
        (lambda: constant(0.1).then(constant(1)), ValueError, r"constant\(0\.1\) never ends.*give it steps="),
        (lambda: constant(0.1, steps=1).then(0.5), TypeError, r"not 0\.5; .* constant\(0\.5\)"),
        (lambda: linear(0, 1, steps=2)(0), ValueError, "counted from 1, and .* step 0"),
        (lambda: from_state({"schedule": "cosin"}), ValueError, "'cosin'.* schedules are: .*cosine"),
        (lambda: from_state({"schedule": "linear", "begin": 1}), ValueError, "'begin'"),
        (lambda: from_state("linear"), ValueError, "'linear' is no schedule's state"),
    ],
)
def test_errors_name_the_value(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()


def test_every_kind_is_tried_here():
    kinds = {name for name in onepass.schedules.__all__ if isinstance(getattr(onepass.schedules, name), type)}
    assert kinds - {"Schedule"} <= {type(schedule).__name__ for schedule in EVERY_KIND}
    assert all(isinstance(schedule, Schedule) for schedule in EVERY_KIND)
