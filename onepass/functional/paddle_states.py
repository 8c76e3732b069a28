"""What Paddle's checkpoints hold of our optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import paddle
from paddle.optimizer.lr import LambdaDecay, LRScheduler

from onepass.functional.paddle_groups import Member

_STEP = "step"
# What paddle.save adds to a dict, and paddle.Model.load leaves in it.
_TABLE_OF_NAMES = "StructuredToParameterName@@"


def _key(member: Member, name: str | None, state: str) -> str:
    # Paddle's own are numbered by how many optimizers the process has made; these can be found again.
    return f"{member.p.name}_{f'{name}_' if name else ''}{state}_0"


def _keys(member: Member, name: str | None) -> dict[str, str]:
    return {state: _key(member, name, state) for state in (*member.recipe.program.initial, _STEP)}


def names_of(members: Sequence[Member], name: str | None) -> list[str]:
    """The keys of the states there are."""
    return [key for member in members if member.state is not None for key in _keys(member, name).values()]


def saved(members: Sequence[Member], name: str | None, rate: Any) -> dict[str, Any]:
    """The state dict."""
    found: dict[str, Any] = {}
    masters: dict[str, Any] = {}
    for member in members:
        if member.state is None:
            continue
        for state, key in _keys(member, name).items():
            value = member.t if state == _STEP else member.state[state]
            if isinstance(value, (int, float)):
                value = paddle.to_tensor([value], dtype="int64" if state == _STEP else "float64", place="cpu")
            found[key] = value
        if member.master is not None:
            masters[member.p.name] = member.master
    if masters:
        found["master_weights"] = masters
    if isinstance(rate, LRScheduler):
        found["LR_Scheduler"] = rate.state_dict()
    return found


def load(
    members: Sequence[Member], name: str | None, rate: Any, multi_precision: bool, given: Mapping[str, Any]
) -> None:
    """Take everything from a state dict: look at it all first, then change.

    Raises:
        ValueError: a state is missing, unknown or of another shape.
    """
    states = {key: value for key, value in given.items() if key != _TABLE_OF_NAMES}
    schedule, masters = states.pop("LR_Scheduler", None), dict(states.pop("master_weights", {}))
    is_scheduled = isinstance(rate, LRScheduler)
    if schedule is None and is_scheduled and not isinstance(rate, LambdaDecay):
        raise ValueError("the state dict has no 'LR_Scheduler', and the learning rate follows a scheduler")
    if schedule is not None and not is_scheduled:
        raise ValueError(
            "the state dict has the state of an 'LR_Scheduler', and the learning rate follows none: "
            "give the optimizer the scheduler, or take the entry out"
        )
    if masters and not multi_precision:
        raise ValueError("the state dict has 'master_weights': make the optimizer with multi_precision=True")
    loaded = [_states_of(member, name, states) for member in members]
    for member in members:
        if member.p.name in masters:
            _check_shape(f"master_weights[{member.p.name!r}]", masters[member.p.name], member.p)
    _check_unknown(members, name, states, masters)
    for member, found in zip(members, loaded, strict=True):
        _restore(member, found, masters.get(member.p.name))
    if schedule is not None:
        rate.set_state_dict(schedule)


def _states_of(member: Member, name: str | None, states: Mapping[str, Any]) -> dict[str, Any]:
    keys = _keys(member, name)
    found = {state: states[key] for state, key in keys.items() if key in states}
    missing = [key for key in keys.values() if key not in states]
    if found and missing:
        raise ValueError(f"the state dict lacks {', '.join(map(repr, missing))}, and has the rest of {member.p.name}")
    for state, value in found.items():
        if state != _STEP and state not in member.recipe.program.scalars:
            _check_shape(repr(keys[state]), value, member.p)
    return found


def _check_shape(what: str, value: Any, p: Any) -> None:
    if tuple(value.shape) != tuple(p.shape):
        raise ValueError(f"{what} has the shape {tuple(value.shape)}, and {p.name} {tuple(p.shape)}")


def _check_unknown(
    members: Sequence[Member], name: str | None, states: Mapping[str, Any], masters: Mapping[str, Any]
) -> None:
    known = {key for member in members for key in _keys(member, name).values()}
    # paddle.Model.load enters every state a second time, under names of Paddle's own making.
    used = {id(states[key]) for key in known if key in states}
    unknown = [key for key, value in states.items() if key not in known and id(value) not in used]
    names = {member.p.name for member in members}
    unknown += [f"master_weights[{key!r}]" for key in masters if key not in names]
    if unknown:
        raise ValueError(
            f"the state dict holds {_few(unknown)}, which this optimizer has no place for; its parameters are "
            f"{_few(sorted(names))}. A model has the same names in a new process, and under "
            "paddle.utils.unique_name.guard()"
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (", ..." if len(names) > 4 else "")


def _restore(member: Member, found: Mapping[str, Any], master: Any) -> None:
    member.t, member.state, member.master = 0, None, None
    if master is not None:
        member.master = paddle.to_tensor(master).astype("float32").clone()
    if not found:
        return
    fresh = member.fresh()
    for state, old in fresh.items():
        value = found[state]
        if isinstance(old, float):
            fresh[state] = _number(value)
        else:
            fresh[state] = paddle.to_tensor(value, place=old.place).astype(old.dtype).clone()
    member.t, member.state = int(_number(found[_STEP])), fresh


def _number(value: Any) -> float:
    return float(paddle.to_tensor(value).reshape([-1])[0])
