"""Laws of construction: what an optimizer is made from, what it refuses, its groups and its class."""

from __future__ import annotations

from typing import Any

import torch

from onepass.testing.law import (
    Subject,
    equal,
    give_gradients,
    held,
    law,
    parameters,
    refusal,
    require,
    require_equal,
    values,
    walk,
)


@law
def takes_tensors_groups_and_named_pairs(subject: Subject) -> None:
    """Parameters come as tensors, as dicts of groups or as (name, tensor) pairs, from any iterable, in order."""
    p, q = parameters((4, 3), (5,))
    for kind, given in {
        "a list of tensors": [p, q],
        "an iterator of tensors": iter([p, q]),
        "a group": [{"params": [p, q]}],
        "a group of an iterator": [{"params": iter([p, q])}],
        "a group of a single tensor": [{"params": p}, {"params": [q]}],
        "named pairs": [("p", p), ("q", q)],
        "a group of named pairs": [{"params": [("p", p), ("q", q)]}],
    }.items():
        kept = held(subject.make(given))
        require(len(kept) == 2 and kept[0] is p and kept[1] is q, f"{kind} did not arrive in the groups, in order")


@law
def an_empty_list_is_refused(subject: Subject) -> None:
    """No parameters at all is a ValueError: a model that was passed wrongly must not train in silence."""
    require(refusal(lambda: subject.make([]), ValueError) is not None, "an empty list was accepted")


@law
def an_empty_group_is_legal(subject: Subject) -> None:
    """A group without parameters is no error, and does not stop the other groups."""
    (p,) = parameters((5,))
    before = values([p])
    opt = subject.make([{"params": []}, {"params": [p]}])
    walk(opt, [p], [1])
    require(not equal([p], before), "beside an empty group a parameter did not move")


@law
def only_leaf_tensors_are_taken(subject: Subject) -> None:
    """A single tensor, or something that is no tensor, is a TypeError; a tensor that is no leaf a ValueError."""
    (p,) = parameters((5,))
    require(refusal(lambda: subject.make(p), TypeError) is not None, "a tensor in place of a list was accepted")
    require(refusal(lambda: subject.make([1.0]), TypeError) is not None, "a float was accepted as a parameter")
    if not subject.defaults.get("differentiable"):
        require(refusal(lambda: subject.make([2 * p]), ValueError) is not None, "a tensor that is no leaf was accepted")


@law
def a_parameter_is_in_one_group(subject: Subject) -> None:
    """A parameter that two groups list is a ValueError."""
    (p,) = parameters((5,))
    groups = [{"params": [p]}, {"params": [p]}]
    require(
        refusal(lambda: subject.make(groups), ValueError) is not None, "two groups with one parameter were accepted"
    )


@law
def a_parameter_listed_twice_steps_once(subject: Subject) -> None:
    """A parameter that one group lists twice is a ValueError, or steps once at each step."""
    p, q = (parameters((5,))[0] for _ in range(2))
    twice: list[torch.optim.Optimizer] = []
    if refusal(lambda: twice.append(subject.make([p, p])), ValueError) is None:
        walk(twice[0], [p], [1, 2])
        walk(subject.make([q]), [q], [1, 2])
        require_equal([p], [q], "listed twice it should move as if listed once")


@law
def the_callers_groups_are_left_alone(subject: Subject) -> None:
    """The dicts that a caller passes are not written to, whether the constructor succeeds or fails."""
    p, q = parameters((4, 3), (5,))
    for what, last in {"made": q, "refused": "no tensor"}.items():
        groups = [{"params": [p]}, {"params": [last]}]
        refusal(lambda given=groups: subject.make(given), TypeError)
        added = sorted({key for group in groups for key in group} - {"params"})
        require(not added, f"after an optimizer was {what} the caller's groups also hold {added}")
        kept = groups[0]["params"] == [p] and groups[1]["params"][0] is last
        require(kept, f"after an optimizer was {what} the caller's groups hold other parameters")


@law
def groups_have_their_own_hyperparameters(subject: Subject) -> None:
    """What a group's dict says holds for that group alone; what it does not say comes from the defaults."""
    if not subject.has_lr:
        return
    for still in (0, 1):
        params = parameters((4, 3), (5,))
        groups = [{"params": [p]} for p in params]
        opt = subject.make([{**group, "lr": 0.0} if i == still else group for i, group in enumerate(groups)])
        require(opt.param_groups[1 - still]["lr"] == subject.defaults["lr"], "a group lacks the default lr")
        before = values(params)
        walk(opt, params, [1])
        moved = [not torch.equal(p, old) for p, old in zip(params, before, strict=True)]
        require(not moved[still], f"group {still} has lr = 0 and moved")
        require(moved[1 - still], f"group {1 - still} did not move: the other group's lr of 0 reached it")


@law
def groups_can_be_added_later(subject: Subject) -> None:
    """A group added in mid-training steps as a new optimizer's would, with the defaults that it does not override."""
    early, late = parameters((4, 3), (5,))
    alone = parameters((4, 3), (5,))[1]
    opt = subject.make([early])
    walk(opt, [early], [1, 2, 3])
    opt.add_param_group({"params": [late]})
    missing = opt.param_groups[0].keys() - opt.param_groups[1].keys()
    require(not missing, f"the group that was added lacks {sorted(missing)}")
    opt.zero_grad()
    walk(opt, [late], [4, 5])
    walk(subject.make([alone]), [alone], [4, 5])
    require_equal([late], [alone], "a parameter added later should step as in an optimizer of its own")


@law
def names_are_kept(subject: Subject) -> None:
    """The names of (name, tensor) pairs stand in the groups and in the state dict, and survive loading."""
    params = parameters((4, 3), (5,))
    opt, other = (subject.make(list(zip(["weight", "bias"], params, strict=True))) for _ in range(2))
    walk(opt, params, [1])
    for place, group in {"group": opt.param_groups[0], "state dict": opt.state_dict()["param_groups"][0]}.items():
        require(group.get("param_names") == ["weight", "bias"], f"the {place} has names {group.get('param_names')}")
    other.load_state_dict(opt.state_dict())
    names = other.param_groups[0].get("param_names")
    require(names == ["weight", "bias"], f"after loading the group has names {names}")


class _Wrapper:
    """What frameworks put around an optimizer, so that it still passes for one."""

    def __init__(self, wrapped: torch.optim.Optimizer):
        taken = ("step", "zero_grad", "state_dict", "__del__")
        self.__dict__ = {key: value for key, value in wrapped.__dict__.items() if key not in taken}
        self.wrapped = wrapped

    def step(self, closure: Any = None) -> Any:
        return self.wrapped.step(closure)


@law
def the_class_can_be_subclassed_at_run_time(subject: Subject) -> None:
    """A framework can wrap an optimizer in a class made of its own and the optimizer's, as Lightning does."""
    (p,) = parameters((5,))
    wrapper: Any = _Wrapper(subject.make([p]))
    wrapper.__class__ = type(f"Wrapped{subject.cls.__name__}", (_Wrapper, subject.cls), {})
    require(isinstance(wrapper, subject.cls), "the wrapper does not pass for the optimizer")
    require(wrapper.param_groups[0]["params"][0] is p, "the wrapper does not show the groups")
    before = values([p])
    give_gradients([p], 1)
    wrapper.step()
    require(not equal([p], before), "through the wrapper a parameter did not move")
