"""``step`` is called as torch calls it: hooks, the profiler's label, closures."""

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import onepass

KINDS = {"torch": torch.optim.SGD, "onepass": onepass.SGD}


def made(kind):
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    return KINDS[kind]([p], lr=0.1)


def recorder(seen, name):
    return lambda opt, args, kwargs: seen.append((name, len(args), args[0] is opt, sorted(kwargs)))


def with_hooks(opt, pre, post, everywhere):
    """What the hooks see of a step with a closure, given by position and by name."""
    seen = []
    handles = []
    if pre:
        handles.append(opt.register_step_pre_hook(recorder(seen, "before")))
    if post:
        handles.append(opt.register_step_post_hook(recorder(seen, "after")))
    if "before" in everywhere:
        handles.append(register_optimizer_step_pre_hook(recorder(seen, "before all")))
    if "after" in everywhere:
        handles.append(register_optimizer_step_post_hook(recorder(seen, "after all")))
    try:
        opt.step()
        opt.step(lambda: torch.zeros(()))
        opt.step(closure=lambda: torch.zeros(()))
    finally:
        for handle in handles:
            handle.remove()
    return seen


@pytest.mark.parametrize("everywhere", [(), ("before",), ("after",), ("before", "after")])
@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("pre", [False, True])
def test_hooks_see_what_torch_shows_them(pre, post, everywhere):
    ours, theirs = (with_hooks(made(kind), pre, post, everywhere) for kind in ("onepass", "torch"))
    assert ours == theirs
    assert len(ours) == 3 * (pre + post + len(everywhere))


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_comes_in_mid_step_sees_its_end(kind):
    opt, seen = made(kind), []
    opt.step(lambda: opt.register_step_post_hook(lambda *_: seen.append("after")) and None)
    assert seen == ["after"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_may_change_the_arguments(kind):
    opt = made(kind)
    opt.register_step_pre_hook(lambda opt, args, kwargs: ((opt, lambda: torch.tensor(7.0)), {}))
    assert opt.step() == 7.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_profiler_sees_the_step(kind):
    opt = made(kind)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        opt.step()
    labels = [event for event in profile.events() if event.name == "Optimizer.step#SGD.step"]
    assert len(labels) == 1
    assert labels[0].is_user_annotation
