"""Laws of the state: copies, checkpoints, and what may stand in them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch

from onepass.testing.law import (
    Subject,
    changed_keys,
    held,
    law,
    parameters,
    refusal,
    require,
    require_equal,
    saved_and_loaded,
    state_of,
    values,
    walk,
)
from onepass.testing.tensors import REAL


def _copies_go_their_own_way(subject: Subject, duplicate: Callable[[Any], Any]) -> None:
    params = parameters()
    opt = subject.make(params)
    walk(opt, params, [1, 2, 3])
    twin = duplicate(opt)
    twins = held(twin)
    require(not any(p is q for p, q in zip(params, twins, strict=True)), "the copy holds the original's parameters")
    groups = [
        {key: group[key] for key in group if key != "params"} for group in (*opt.param_groups, *twin.param_groups)
    ]
    require(groups[0] == groups[1], f"the copy's hyperparameters are {groups[1]}, the original's {groups[0]}")
    kept = values(twins)
    walk(opt, params, [4, 5, 6])
    require_equal(twins, kept, "the copy should stay where it is while the original steps")
    walk(twin, twins, [4, 5, 6])
    require_equal(twins, params, "the copy should continue as the original did")


@law
def deepcopy_copies(subject: Subject) -> None:
    """``copy.deepcopy`` gives an optimizer that continues as the original does, on parameters of its own."""
    _copies_go_their_own_way(subject, copy.deepcopy)


@law
def pickle_copies(subject: Subject) -> None:
    """An optimizer that went through pickle continues as the original does, on parameters of its own."""
    _copies_go_their_own_way(subject, lambda opt: pickle.loads(pickle.dumps(opt)))


@law
def checkpoints_continue_bit_for_bit(subject: Subject) -> None:
    """Saved, loaded with ``weights_only=True`` into a new optimizer, training continues bit for bit, in every type."""
    for dtype in REAL:
        params = parameters(dtype=dtype)
        opt = subject.make(params)
        walk(opt, params, [1, 2, 3])
        saved = saved_and_loaded({"optimizer": opt.state_dict(), "parameters": values(params)})
        states = [state_of(opt, p) for p in params]
        resumed = [torch.nn.Parameter(p) for p in saved["parameters"]]
        again = subject.make(resumed)
        # A new optimizer may have stepped before it loads, as one that resumes within a process.
        walk(again, resumed, [7])
        for p, value in zip(resumed, saved["parameters"], strict=True):
            p.data.copy_(value)
        again.load_state_dict(saved["optimizer"])
        for p, q, state in zip(params, resumed, states, strict=True):
            changed = changed_keys(state, state_of(again, q))
            require(not changed, f"in {dtype} the state's {changed} came back with another value or type")
            p.data.copy_(q)
        walk(opt, params, [4, 5, 6])
        walk(again, resumed, [4, 5, 6])
        require_equal(resumed, params, f"in {dtype} training should continue as without the interruption")


@law
def checkpoints_bring_their_hyperparameters(subject: Subject) -> None:
    """After loading, the groups hold the checkpoint's hyperparameters, which can be changed as before."""
    if not subject.has_lr:
        return
    params = parameters()
    rate = 0.5 * float(subject.defaults["lr"])
    opt, again = subject.make(params, lr=rate), subject.make(params)
    walk(again, params, [1])
    again.load_state_dict(saved_and_loaded(opt.state_dict()))
    require(again.param_groups[0]["lr"] == rate, f"lr was {rate} and is {again.param_groups[0]['lr']} after loading")
    again.param_groups[0]["lr"] = 0.0
    kept = values(params)
    walk(again, params, [2])
    require_equal(params, kept, "when lr has been put at 0 after loading nothing should move")


@law
def loading_copies(subject: Subject) -> None:
    """An optimizer that has loaded another's state dict shares nothing with it: neither steps for both."""
    params, others = parameters(), parameters()
    opt, other = subject.make(params), subject.make(others)
    walk(opt, params, [1, 2])
    other.load_state_dict(opt.state_dict())
    before = [state_of(opt, p) for p in params]
    walk(other, others, [3])
    after = [state_of(opt, p) for p in params]
    changed = sorted({key for old, new in zip(before, after, strict=True) for key in changed_keys(old, new)})
    require(not changed, f"a step of the one changed {changed} of the other")


@law
def a_checkpoint_of_other_groups_is_refused(subject: Subject) -> None:
    """Loading a state dict of more groups, or of more parameters, is a ValueError that changes nothing."""
    p, q = parameters((4, 3), (5,))
    opt = subject.make([p])
    walk(opt, [p], [1])
    kept = state_of(opt, p)
    for what, given in {"groups": [{"params": [p]}, {"params": [q]}], "parameters": [p, q]}.items():
        other = subject.make(given)
        walk(other, [p, q], [2])
        saved = other.state_dict()
        refused = refusal(lambda loaded=saved: opt.load_state_dict(loaded), ValueError)
        require(refused is not None, f"a state dict of more {what} was loaded")
        require(not changed_keys(kept, state_of(opt, p)), f"the refusal of more {what} changed the state")


@law
def a_new_optimizer_reloads(subject: Subject) -> None:
    """The state dict of an optimizer that never stepped loads, and the first step is then as without it."""
    params, others = parameters(), parameters()
    opt, fresh = subject.make(params), subject.make(others)
    opt.load_state_dict(saved_and_loaded(subject.make(params).state_dict()))
    walk(opt, params, [1, 2])
    walk(fresh, others, [1, 2])
    require_equal(params, others, "after loading nothing the first steps should be as ever")


@law
def a_cleared_state_starts_anew(subject: Subject) -> None:
    """After ``optimizer.state.clear()`` the next steps are those of a new optimizer."""
    params = parameters()
    opt = subject.make(params)
    walk(opt, params, [1, 2, 3])
    others = [torch.nn.Parameter(p.detach().clone()) for p in params]
    opt.state.clear()
    walk(opt, params, [4, 5])
    walk(subject.make(others), others, [4, 5])
    require_equal(params, others, "without its state an optimizer should step as a new one")


@law
def state_keys_are_parameters(subject: Subject) -> None:
    """The state is kept under parameters and nothing else: torch.distributed.checkpoint refuses other keys."""
    params = parameters()
    opt = subject.make(params)
    walk(opt, params, [1, 2])
    others = [key for key in opt.state if not any(key is p for p in params)]
    require(not others, f"the state also has the keys {others}")
    numbers = list(opt.state_dict()["state"])
    require(set(numbers) <= set(range(len(params))), f"the state dict has the keys {numbers}")


@law
def state_dict_hooks_run(subject: Subject) -> None:
    """Hooks on ``state_dict`` and ``load_state_dict`` run before and after, and what they return is used."""
    params = parameters()
    opt = subject.make(params)
    walk(opt, params, [1])
    seen: list[str] = []

    def tagged(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        seen.append("post")
        return {**state_dict, "tag": 1}

    def untagged(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        seen.append("load pre")
        groups = [{**group, "tag": state_dict["tag"]} for group in state_dict["param_groups"]]
        return {"state": state_dict["state"], "param_groups": groups}

    opt.register_state_dict_pre_hook(lambda _: seen.append("pre"))
    opt.register_state_dict_post_hook(tagged)
    opt.register_load_state_dict_pre_hook(untagged)
    opt.register_load_state_dict_post_hook(lambda _: seen.append("load post"))
    state_dict = opt.state_dict()
    require(state_dict.get("tag") == 1, "what the state dict's post hook returned was not used")
    opt.load_state_dict(state_dict)
    require(seen == ["pre", "post", "load pre", "load post"], f"the hooks ran as {seen}")
    require(opt.param_groups[0].get("tag") == 1, "what the load's pre hook returned was not used")
