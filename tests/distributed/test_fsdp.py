"""FSDP2: parameters and states as DTensors, on two ranks against one."""

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from helpers import relative_error
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from training import make_model, train, values, whole

import onepass

STEPS = 60

TRANSFORMS = {
    "clip_norm": (lambda: onepass.clip_norm(0.05), "last_grad_norm"),
    "clip_adaptive": (lambda: onepass.clip_adaptive(clipping=0.05), None),
    "centralize": (lambda: onepass.centralize(), None),
    "cautious": (lambda: onepass.cautious(), None),
    "lookahead": (lambda: onepass.lookahead(k=5), None),
    "average": (lambda: onepass.average(0.9), None),
}


def shard(model, plain=()):
    """Shard every layer but those in ``plain``, which stay whole on each rank; their gradients are averaged by hand."""
    for i, layer in enumerate(model):
        if i not in plain and list(layer.parameters()):
            fully_shard(layer)
    if not plain:
        fully_shard(model)
    return model


def average_plain(model):
    def before_step(_):
        for p in model.parameters():
            if not isinstance(p, DTensor):
                dist.all_reduce(p.grad)
                p.grad /= dist.get_world_size()

    return before_step


def prepared(name, transform=None, lr=3e-3, **more):
    """Makes the optimizer of a model: its matrices decay, its vectors do not."""
    transforms = [TRANSFORMS[transform][0]()] if transform else []

    def make(model):
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        return onepass.create(name, groups, lr=lr, transforms=transforms, **more)

    return make


def sharded_run(name, transform=None, plain=(), steps=STEPS, **more):
    model = shard(make_model(), plain)
    opt = prepared(name, transform, **more)(model)
    train(model, opt, range(steps), average_plain(model))
    report = TRANSFORMS[transform][1] if transform else None
    faithful = all(
        isinstance(state, DTensor) and state.device_mesh == p.device_mesh and state.placements == p.placements
        for p in model.parameters()
        if isinstance(p, DTensor)
        for key, state in opt.state[p].items()
        if state.ndim
    )
    return {
        "values": values(model),
        "states": [{key: whole(state) for key, state in opt.state[p].items()} for p in model.parameters()],
        "report": getattr(opt, report) if report else 0.0,
        "faithful": faithful,
        "smallest": min(p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor)),
    }


def alone(name, transform=None, steps=STEPS, **more):
    model = make_model()
    opt = prepared(name, transform, **more)(model)
    train(model, opt, range(steps))
    states = [{key: whole(state) for key, state in opt.state[p].items()} for p in model.parameters()]
    return values(model), states, opt


def compare(results, expected, states, tolerance=1e-10):
    for result in results:
        assert result["faithful"]
        assert relative_error(result["values"], expected) < tolerance
        for ours, theirs in zip(result["states"], states, strict=True):
            assert ours.keys() == theirs.keys()
            assert all(torch.allclose(ours[key], theirs[key], rtol=1e-8, atol=1e-12) for key in ours)


@pytest.mark.parametrize("name", onepass.list_optimizers())
def test_sharded_parameters_step_as_whole_ones(two_ranks, name):
    results = two_ranks(sharded_run, name)
    compare(results, *alone(name)[:2])
    assert min(result["smallest"] for result in results) == 0


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_see_the_whole_of_a_sharded_model(two_ranks, transform):
    results = two_ranks(sharded_run, "adamw", transform)
    expected, states, opt = alone("adamw", transform)
    compare(results, expected, states)
    if report := TRANSFORMS[transform][1]:
        assert all(result["report"] == pytest.approx(getattr(opt, report), rel=1e-10) for result in results)
        assert results[0]["report"] > 0.05


@pytest.mark.parametrize("transform", [None, "clip_norm"])
def test_sharded_and_plain_parameters_share_a_group(two_ranks, transform):
    results = two_ranks(sharded_run, "adamw", transform, (0,))
    expected, states, opt = alone("adamw", transform)
    compare(results, expected, states)
    if transform:
        assert all(result["report"] == pytest.approx(opt.last_grad_norm, rel=1e-10) for result in results)


def with_torchs_clipping():
    model = shard(make_model())
    opt = prepared("adamw")(model)
    train(model, opt, range(STEPS), lambda _: torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05))
    return values(model)


def test_torchs_own_clipping_agrees_with_the_transform(two_ranks):
    ours, _ = two_ranks(with_torchs_clipping)
    assert relative_error(ours, alone("adamw", "clip_norm")[0]) < 1e-10


def with_a_bad_gradient(backend):
    """In the sixth step the last layer's gradient is NaN, which only rank 0 can see."""
    model = shard(make_model())
    opt = prepared("adamw", skip_nonfinite=True, backend=backend)(model)

    def spoil(t):
        if t == 5:
            model[4].weight.grad.to_local().fill_(float("nan"))

    train(model, opt, range(12), spoil)
    return {"values": values(model), "skipped": opt.skipped_steps}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_all_ranks_skip_a_step_that_one_cannot_take(two_ranks, backend):
    first, second = two_ranks(with_a_bad_gradient, backend)
    assert (first["skipped"], second["skipped"]) == (1, 1)
    model = make_model()
    opt = prepared("adamw")(model)
    train(model, opt, [t for t in range(12) if t != 5])
    assert relative_error(first["values"], values(model)) < 1e-10


@pytest.mark.parametrize("name", ["adamw", "ranger"])
def test_the_reference_steps_shards_as_the_kernels_do(two_ranks, name):
    first, _ = two_ranks(sharded_run, name, "clip_norm")
    second, _ = two_ranks(by_reference, name)
    assert relative_error(first["values"], second["values"]) < 1e-10


def by_reference(name):
    return sharded_run(name, "clip_norm", backend="reference")


def leg(name, folder, source, target, steps):
    """A part of a training that may go on with more or fewer ranks: load, step, save."""
    model = shard(make_model())
    opt = prepared(name)(model)
    if source is not None:
        saved = {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, opt)}
        dcp.load(saved, checkpoint_id=folder / source)
        set_model_state_dict(model, saved["model"])
        set_optimizer_state_dict(model, opt, saved["optimizer"])
    train(model, opt, steps)
    saved = {"model": get_model_state_dict(model), "optimizer": get_optimizer_state_dict(model, opt)}
    dcp.save(saved, checkpoint_id=folder / target)
    return values(model)


@pytest.mark.parametrize("name", ["adamw", "sgd", "nadam", "ranger"])
def test_a_checkpoint_goes_from_one_rank_to_two_and_back(one_rank, two_ranks, tmp_path, name):
    one_rank(leg, name, tmp_path, None, "first", range(10))
    two_ranks(leg, name, tmp_path, "first", "second", range(10, 20))
    (ours,) = one_rank(leg, name, tmp_path, "second", "third", range(20, 30))
    assert relative_error(ours, alone(name, steps=30)[0]) < 1e-10


def saved_before_the_first_step(name):
    model = shard(make_model())
    opt = prepared(name)(model)
    opt.init_state()
    before = values(model)
    saved = get_optimizer_state_dict(model, opt)
    counts = [float(opt.state[p]["step"]) for p in model.parameters()]
    unchanged = all(torch.equal(p, q) for p, q in zip(values(model), before, strict=True))
    return {"counts": counts, "unchanged": unchanged, "keys": sorted(saved["state"])}


def test_init_state_keeps_the_counts_of_a_first_checkpoint_at_zero(two_ranks):
    for result in two_ranks(saved_before_the_first_step, "adamw"):
        assert set(result["counts"]) == {0.0}
        assert result["unchanged"]
        assert result["keys"] == sorted(name for name, _ in make_model().named_parameters())
