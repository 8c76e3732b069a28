"""A gradient that is there on one rank only: no rank waits for ever, and none steps a part of a tensor in silence."""

import pytest
import torch
import torch.distributed as dist
from test_fsdp import prepared, shard
from training import make_model, train, whole

import onepass


def with_a_gradient_missing(transform, missing, first, backend, more):
    """In step ``first`` rank 1 lacks the gradients of some layers; what each rank hears, and what it then holds."""
    model = shard(make_model())
    opt = prepared("adamw", transform, backend=backend, **more)(model)
    train(model, opt, range(first))
    before = [whole(p) for p in model.parameters()]

    def lose(_):
        if dist.get_rank() == 1:
            for p in model.parameters() if missing is None else model[missing].parameters():
                p.grad = None

    error = "none"
    try:
        train(model, opt, [first], lose)
    except RuntimeError as raised:
        error = str(raised)
    unchanged = all(torch.equal(p, whole(q)) for p, q in zip(before, model.parameters(), strict=True))
    # The ranks are still in step: the next iteration is an ordinary one.
    train(model, opt, [first + 1])
    after = [whole(p) for p in model.parameters()]
    return {"error": error, "unchanged": unchanged, "after": after}


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("missing", [0, 2, None])
@pytest.mark.parametrize(("transform", "more"), [("clip_norm", {}), ("cautious", {}), (None, {"skip_nonfinite": True})])
def test_all_ranks_refuse_a_gradient_that_one_lacks(two_ranks, transform, more, missing, first, backend):
    ours, theirs = two_ranks(with_a_gradient_missing, transform, missing, first, backend, more)
    for result in (ours, theirs):
        assert "on some processes only" in result["error"]
        assert "on 1 of 2" in result["error"]
        assert result["unchanged"]
    assert all(torch.equal(p, q) for p, q in zip(ours["after"], theirs["after"], strict=True))


def with_a_layer_missing_everywhere():
    model = shard(make_model())
    opt = prepared("adamw", "clip_norm")(model)

    def lose(_):
        for p in model[2].parameters():
            p.grad = None

    train(model, opt, range(4), lose)
    return {"norm": opt.last_grad_norm, "values": [whole(p) for p in model.parameters()]}


def test_a_gradient_that_no_rank_has_is_none_to_clip(two_ranks):
    ours, theirs = two_ranks(with_a_layer_missing_everywhere)
    assert ours["norm"] == theirs["norm"]
    untouched = list(make_model()[2].parameters())
    assert all(torch.equal(p, q) for p, q in zip(ours["values"][2:4], untouched, strict=True))
    assert not torch.equal(ours["values"][0], next(make_model().parameters()))


def elementwise():
    model = shard(make_model())
    opt = onepass.AdamW(model.parameters())
    calls = []
    every, dist.all_reduce = dist.all_reduce, lambda *given, **named: calls.append(given)
    try:
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        opt.step()
    finally:
        dist.all_reduce = every
    return len(calls)


def test_an_elementwise_step_asks_no_other_rank(two_ranks):
    assert two_ranks(elementwise) == [0, 0]
