"""Checkpoints: exchanged with torch in mid-training, older ones, named ones, and what must be refused."""

import io
import random

import pytest
import torch
from helpers import parameters, relative_error, set_gradients

import onepass

# Every optimizer torch has, with the flags that give it other states.
EXCHANGED = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("Adagrad", {"lr_decay": 0.01, "initial_accumulator_value": 0.1}),
    ("Adadelta", {}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adam", {"weight_decay": 0.1}),
    ("Adam", {"amsgrad": True, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("AdamW", {"amsgrad": True}),
    ("AdamW", {}),
    ("Adamax", {"weight_decay": 0.1}),
    ("NAdam", {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("RAdam", {"weight_decay": 0.1}),
]


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def steps(opt, params, count, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        set_gradients(params, generator)
        opt.step()


def copies(params):
    return [torch.nn.Parameter(p.detach().clone()) for p in params]


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("direction", ["from torch", "to torch"])
@pytest.mark.parametrize(("name", "options"), EXCHANGED)
def test_a_run_goes_on_in_the_other_library(name, options, direction):
    ours, theirs = getattr(onepass, name), getattr(torch.optim, name)
    first, second = (theirs, ours) if direction == "from torch" else (ours, theirs)
    for seed in range(4):
        params = parameters(seed)
        opt = first(params, **options)
        steps(opt, params, 3 + 3 * seed, seed)
        moved = copies(params)
        # What the checkpoint says counts, not what the constructor is given.
        other = second(moved, lr=123.0)
        other.load_state_dict(through_a_file(opt.state_dict()))
        steps(opt, params, 10, seed + 100)
        steps(other, moved, 10, seed + 100)
        error = relative_error([p.detach() for p in moved], [p.detach() for p in params])
        assert error < 1e-12, (seed, error)


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize(("name", "options"), EXCHANGED)
def test_a_visit_to_torch_changes_no_bit(name, options):
    for seed in range(4):
        params = parameters(seed)
        opt = getattr(onepass, name)(params, **options)
        steps(opt, params, 1 + seed % 7, seed)
        visitor = getattr(torch.optim, name)(copies(params), **options)
        visitor.load_state_dict(through_a_file(opt.state_dict()))
        moved = copies(params)
        back = getattr(onepass, name)(moved, **options)
        back.load_state_dict(through_a_file(visitor.state_dict()))
        steps(opt, params, 5, seed + 100)
        steps(back, moved, 5, seed + 100)
        assert all(torch.equal(p, q) for p, q in zip(params, moved, strict=True))


def at_random(seed):
    """An optimizer's name, its options, and what makes parameters in groups, all drawn from a seed."""
    draw = random.Random(seed)
    name, options = draw.choice(EXCHANGED)
    options = {**options, "lr": 10 ** draw.uniform(-4, -1), "maximize": draw.random() < 0.3}
    options.setdefault("weight_decay", draw.choice([0.0, 0.05]))
    # Torch casts NAdam's product of momenta to the parameters' type, which loses bits of any narrower one.
    dtype = torch.float64 if name == "NAdam" else draw.choice([torch.float64, torch.float64, torch.float32])
    shapes = [tuple(draw.randint(1, 6) for _ in range(draw.randint(0, 4))) for _ in range(draw.randint(1, 6))]
    named, split, rate = draw.random() < 0.3, draw.randint(0, len(shapes)), 10 ** draw.uniform(-4, -1)

    def make(library, params=None, **torchs):
        params = parameters(seed, dtype, shapes) if params is None else copies(params)
        entries = [(f"p{i}", p) for i, p in enumerate(params)] if named else params
        groups = [{"params": entries[:split]}, {"params": entries[split:], "lr": rate}]
        groups = groups[:2] if 0 < split < len(shapes) else [{"params": entries}]
        return getattr(library, name)(groups, **options, **torchs), params

    return make, draw.choice([False, True]), draw.randint(1, 25), dtype


def steps_with_gaps(opt, params, count, seed):
    """Steps in which now and then a parameter has no gradient."""
    generator, draw = torch.Generator().manual_seed(seed), random.Random(seed)
    for _ in range(count):
        set_gradients(params, generator)
        for p in params:
            if draw.random() < 0.2:
                p.grad = None
        opt.step()


@pytest.mark.usefixtures("float64_default")
@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("direction", ["from torch", "to torch"])
def test_checkpoints_at_random_cross_over_and_back_without_losing_a_bit(seed, direction):
    make, foreach, count, dtype = at_random(seed)
    libraries = [(torch.optim, {"foreach": foreach}), (onepass, {})]
    (first, flags), (second, others) = libraries if direction == "from torch" else libraries[::-1]
    opt, params = make(first, **flags)
    steps_with_gaps(opt, params, count, seed)
    saved = through_a_file(opt.state_dict())
    visitor, moved = make(second, params, **others)
    visitor.load_state_dict(saved)
    there = visitor.state_dict()
    assert there["state"].keys() == saved["state"].keys()
    for i, state in saved["state"].items():
        for key, value in state.items():
            same = there["state"][i][key] is value if value is None else torch.equal(there["state"][i][key], value)
            assert same, (i, key)
    back, returned = make(first, params, **flags)
    back.load_state_dict(through_a_file(there))
    for each, own in ((opt, params), (visitor, moved), (back, returned)):
        steps_with_gaps(each, own, 10, seed + 100)
    assert all(torch.equal(p, q) for p, q in zip(params, returned, strict=True))
    if dtype == torch.float64:
        assert relative_error([p.detach() for p in moved], [p.detach() for p in params]) < 1e-12


@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_keys_that_an_older_checkpoint_lacks_come_from_the_constructor(name):
    params = parameters()
    opt = onepass.create(name, params)
    steps(opt, params, 3, 1)
    old = opt.state_dict()
    for group in old["param_groups"]:
        for key in ("maximize", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay", "decay"):
            group.pop(key, None)
    moved = copies(params)
    resumed = onepass.create(name, moved)
    resumed.load_state_dict(through_a_file(old))
    steps(opt, params, 3, 2)
    steps(resumed, moved, 3, 2)
    assert all(torch.equal(p, q) for p, q in zip(params, moved, strict=True))


def test_the_form_of_decay_that_was_given_outright_outlives_a_checkpoint_without_one():
    theirs = torch.optim.Adam(parameters(), weight_decay=0.1)
    ours = onepass.Adam(parameters(), weight_decay=onepass.decay.independent(0.2))
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["weight_decay"] == 0.1
    assert ours.decay_form_of(ours.param_groups[0]) == "independent"


def named(order, prefix=""):
    by_name = dict(zip("abcd", parameters(), strict=True))
    return [(prefix + name, by_name[name]) for name in order]


def test_named_parameters_are_put_in_order_by_name():
    there, here = named("abcd"), named("cadb")
    opt, other = onepass.AdamW(there), onepass.AdamW(here)
    generator = torch.Generator().manual_seed(1)
    for t in range(8):
        for (_, p), seed in zip(there, range(4), strict=True):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * t + seed), dtype=p.dtype)
        opt.step()
    del generator
    other.load_state_dict(through_a_file(opt.state_dict()))
    states = {name: opt.state[p]["exp_avg"] for name, p in there}
    for name, p in here:
        assert torch.equal(other.state[p]["exp_avg"], states[name])
    assert other.param_groups[0]["param_names"] == list("cadb")


def test_other_names_are_an_error_that_lists_them():
    opt, other = onepass.AdamW(named("abcd")), onepass.AdamW(named("abcd", prefix="module."))
    steps(opt, [p for _, p in named("abcd")], 1, 1)
    with pytest.raises(ValueError, match=r"it lacks 'module\.a', .* and has 'a', 'b', 'c', 'd'"):
        other.load_state_dict(opt.state_dict())


def test_names_that_come_twice_are_told_apart_by_their_order_or_not_at_all():
    def twins(names):
        return list(zip(names, parameters(shapes=((2,), (2,), (2,))), strict=True))

    there, here = twins("aab"), twins("aab")
    opt, other = onepass.AdamW(there), onepass.AdamW(here)
    steps(opt, [p for _, p in there], 2, 1)
    other.load_state_dict(opt.state_dict())
    for (_, p), (_, q) in zip(there, here, strict=True):
        assert torch.equal(opt.state[p]["exp_avg"], other.state[q]["exp_avg"])
    with pytest.raises(ValueError, match="come in another order, and 'a' names several of them"):
        onepass.AdamW(twins("aba")).load_state_dict(opt.state_dict())


def test_other_groups_are_an_error_that_changes_nothing():
    params = parameters()
    opt = onepass.AdamW(params)
    steps(opt, params, 2, 1)
    before = opt.state_dict()
    fewer = onepass.AdamW(parameters()[:2])
    with pytest.raises(ValueError, match="doesn't match the size"):
        opt.load_state_dict(fewer.state_dict())
    assert opt.state_dict()["state"].keys() == before["state"].keys()


def test_a_hook_may_change_what_is_loaded():
    params, moved = parameters(), parameters()
    opt, other = onepass.AdamW(params), onepass.AdamW(moved)
    steps(opt, params, 2, 1)

    def double(_, state):
        for entry in state["state"].values():
            entry["exp_avg"] = 2 * entry["exp_avg"]

    other.register_load_state_dict_pre_hook(double)
    expected = 2 * opt.state[params[0]]["exp_avg"]
    other.load_state_dict(through_a_file(opt.state_dict()))
    assert torch.equal(other.state[moved[0]]["exp_avg"], expected)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("change", ["load", "clear", "replace", "delete"])
def test_states_that_are_replaced_between_steps_are_those_that_the_next_step_starts_from(change, backend):
    """Tables of addresses that are kept from step to step must not go on with the old ones."""
    params, others = parameters(), parameters()
    opt, fresh = (onepass.SGD(p, 0.1, 0.9, backend=backend) for p in (params, others))
    steps(opt, params, 1, 1)
    saved = through_a_file(opt.state_dict())
    steps(opt, params, 2, 2)
    for p, q in zip(params, others, strict=True):
        q.data.copy_(p.data)
    if change == "load":
        opt.load_state_dict(saved)
        fresh.load_state_dict(saved)
    elif change == "clear":
        opt.state.clear()
    else:
        fresh.load_state_dict(through_a_file(opt.state_dict()))
        fresh.state[others[1]]["momentum_buffer"].zero_()
        fresh.state[others[1]]["step"].zero_()
        if change == "replace":
            opt.state[params[1]] = {}
        else:
            del opt.state[params[1]]
    steps(opt, params, 3, 4)
    steps(fresh, others, 3, 4)
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    assert opt.state[params[1]]["step"] == fresh.state[others[1]]["step"]
