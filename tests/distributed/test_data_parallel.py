"""Replicas: DistributedDataParallel and ZeroRedundancyOptimizer on two ranks against one."""

import copy

import pytest
import torch
import torch.distributed as dist
from helpers import relative_error
from torch.nn.parallel import DistributedDataParallel
from training import HYPERPARAMETERS, make_model, put, train, values

import onepass

STEPS = 200


def adamw(params):
    return onepass.AdamW(params, **HYPERPARAMETERS)


def clipped_ranger(params):
    return onepass.Ranger(params, lr=3e-3, transforms=[onepass.clip_norm(0.1)])


def alone(make):
    model = make_model()
    train(model, make(model.parameters()), range(STEPS))
    return values(model)


def replicate(make):
    model = DistributedDataParallel(make_model())
    train(model, make(model.parameters()), range(STEPS))
    return values(model)


def shard_states(walked):
    """ZeRO: each rank keeps some of the states; half way they are brought together and given to a second optimizer.

    With ``walked`` that one has stepped before it loads, and has states of its own.
    """
    # Its module warns of torch.jit when imported, which would be an error among the tests.
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(make_model())
    opt = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=onepass.AdamW, **HYPERPARAMETERS)
    train(model, opt, range(STEPS // 2))
    opt.consolidate_state_dict(to=0)
    saved = [opt.state_dict() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(saved, src=0)
    half = values(model)
    again = ZeroRedundancyOptimizer(model.parameters(), optimizer_class=onepass.AdamW, lr=1.0)
    if walked:
        train(model, again, range(3))
        put(model, half)
    # Loading puts None in the place of the states that belong to the other rank.
    again.load_state_dict(copy.deepcopy(saved[0]))
    train(model, again, range(STEPS // 2, STEPS))
    return {"end": values(model), "half": half, "kept": len(opt.optim.state), "saved": saved[0]}


@pytest.mark.parametrize("make", [adamw, clipped_ranger])
def test_two_replicas_walk_as_one(two_ranks, make):
    ours, replica = two_ranks(replicate, make)
    assert all(torch.equal(p, q) for p, q in zip(ours, replica, strict=True))
    assert relative_error(ours, alone(make)) < 1e-10


@pytest.mark.parametrize("walked", [False, True])
def test_states_sharded_over_ranks_change_nothing(two_ranks, walked):
    first, second = two_ranks(shard_states, walked)
    assert all(torch.equal(p, q) for p, q in zip(first["end"], second["end"], strict=True))
    assert relative_error(first["end"], alone(adamw)) < 1e-10
    assert first["kept"] + second["kept"] == len(first["end"])
    assert min(first["kept"], second["kept"]) > 0

    model = make_model()
    put(model, first["half"])
    opt = onepass.AdamW(model.parameters())
    opt.load_state_dict(first["saved"])
    train(model, opt, range(STEPS // 2, STEPS))
    assert relative_error(values(model), first["end"]) < 1e-10
