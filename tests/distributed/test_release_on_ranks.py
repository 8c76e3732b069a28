"""Gradient release on two ranks: FSDP2 works as without it, DistributedDataParallel is refused or found out."""

import pytest
import torch
import torch.distributed as dist
from test_fsdp import STEPS, prepared, shard
from torch.nn.parallel import DistributedDataParallel
from training import make_model, train, whole

import onepass


def sharded(name, transform, release):
    model = shard(make_model())
    opt = prepared(name, transform)(model)
    if release:
        onepass.release_gradients(model, opt)
    kept = []
    train(model, opt, range(STEPS), lambda _: kept.append(sum(p.grad is not None for p in model.parameters())))
    values = [whole(p) for p in model.parameters()]
    states = [{key: whole(state) for key, state in opt.state[p].items()} for p in model.parameters()]
    return {"values": values, "states": states, "kept": kept}


@pytest.mark.parametrize(("name", "transform"), [("adamw", None), ("ranger", None), ("adamw", "cautious")])
def test_shards_step_as_their_gradients_arrive(two_ranks, name, transform):
    released = two_ranks(sharded, name, transform, True)
    for ours, theirs in zip(released, two_ranks(sharded, name, transform, False), strict=True):
        assert ours["kept"] == [0] * STEPS
        assert theirs["kept"] == [6] * STEPS
        assert all(torch.equal(p, q) for p, q in zip(ours["values"], theirs["values"], strict=True))
        for mine, other in zip(ours["states"], theirs["states"], strict=True):
            assert mine.keys() == other.keys()
            assert all(torch.equal(mine[key], other[key]) for key in mine)


def with_a_gradient_left_on_one_rank():
    """Fewer arrivals than are to be accumulated: the gradients are stepped by the call, and rank 1 lacks some."""
    model = shard(make_model())
    opt = prepared("adamw", "cautious")(model)
    onepass.release_gradients(model, opt, accumulate=2)

    def lose(_):
        if dist.get_rank() == 1:
            model[2].weight.grad = None

    try:
        train(model, opt, [0], lose)
    except RuntimeError as error:
        return str(error)
    return "none"


def test_what_is_left_for_the_call_must_be_left_on_all_ranks(two_ranks):
    assert all("on some processes only" in error for error in two_ranks(with_a_gradient_left_on_one_rank))


def replicated(inside):
    model = DistributedDataParallel(make_model())
    opt = onepass.AdamW(model.parameters())
    try:
        onepass.release_gradients(model.module if inside else model, opt)
        train(model, opt, [0])
    except (ValueError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def test_a_replicated_model_is_refused(two_ranks):
    for error in two_ranks(replicated, False):
        assert error.startswith("ValueError: release_gradients: DistributedDataParallel sums gradients")


def test_a_replica_passed_without_its_wrapper_is_found_out_at_the_first_step(two_ranks):
    for error in two_ranks(replicated, True):
        assert "is there again after its step: other code writes it" in error
        assert "as DistributedDataParallel does" in error
