"""Parameter groups: what they hold, checked, and which program each one calls for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from onepass.compiler import Program, Stage, compile_rule
from onepass.lang import COMMON, Applied, Rule, check
from onepass.transforms import decay, maximize

Group = dict[str, Any]

# Where a group may say how high its learning rate goes.
_HEIGHTS = ("lr", "initial_lr", "max_lr", "lr_peak", "lr_max")


def settle_decay(owner: str, group: Group) -> None:
    """Turn ``weight_decay=decay.l2(0.1)`` into a plain number, which checkpoints can hold, and the name of its form."""
    given = group.get("weight_decay")
    if not isinstance(given, Applied):
        return
    form = given.transform
    if decay.FORMS.get(form.name) is not form:
        known = ", ".join(f"onepass.decay.{name}" for name in decay.FORMS)
        raise ValueError(f"{owner}: weight_decay takes a number or one of {known}, not {given!r}")
    group.update(given.values)
    group["decay"] = form.name
    if "decoupled_weight_decay" in group:
        group["decoupled_weight_decay"] = form.name == "decoupled"


def check_transforms(owner: str, transforms: Sequence[Applied], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of the transforms under the names they have in parameter groups: ``lookahead_k``.

    Raises:
        TypeError: something in ``transforms`` is no transform, or lacks its parentheses.
        ValueError: one is given twice, is a weight decay, or its hyperparameter's name is taken.
    """
    named: dict[str, Any] = {}
    seen: set[str] = set()
    for given in transforms:
        if not isinstance(given, Applied):
            remedy = f"; call it: {given.name}()" if hasattr(given, "subject") else ""
            raise TypeError(f"{owner}: transforms takes a list such as [lookahead(k=5)], not {given!r}{remedy}")
        name = given.transform.name
        if decay.FORMS.get(name) is given.transform:
            raise ValueError(f"{owner}: {given!r} belongs in weight_decay=, not in transforms=")
        if name in seen:
            raise ValueError(f"{owner}: the transform {name} is given twice")
        seen.add(name)
        for key, value in given.items:
            outside = f"{name}_{key}"
            if outside in defaults:
                raise ValueError(f"{owner}: {given!r} would be called {outside!r}, and that name is taken")
            named[outside] = value
    return named


def stages_of(transforms: Sequence[Applied]) -> tuple[Stage, ...]:
    """The stages of the transforms that a user gave."""
    return tuple(Stage(given.transform, f"{given.transform.name}_") for given in transforms)


def compile_group(
    rule: Rule, stages: tuple[Stage, ...], form: str, group: Mapping[str, Any], first: tuple[Stage, ...] = ()
) -> Program:
    """The program of a group: its rule after ``first`` and ``maximize``, the stages and, unless zero, weight decay."""
    if group["maximize"]:
        first += (Stage(maximize),)
    has_own = "weight_decay" in rule.hyperparameters
    last = (Stage(decay.FORMS[form]),) if group["weight_decay"] != 0 and not has_own else ()
    return compile_rule(rule, first + stages + last)


def host_values(program: Program, group: Group, number: Callable[[Any], Any] = float) -> dict[str, Any]:
    """The values that a group gives to the symbols of its program: each as ``number`` makes it, by default float64."""
    values: dict[str, Any] = {}
    for name, key, index in _places(program):
        if name == "lr_max":
            values[name] = _lr_max(group) if group.get(name) is None else number(group[name])
        elif key in group:
            values[name] = number(group[key] if index is None else group[key][index])
    return values


@cache
def _places(program: Program) -> tuple[tuple[str, str, int | None], ...]:
    """Where a group holds each of a program's hyperparameters: ``betas[1]`` is the second of ``betas``."""
    parts = ((name, *name.partition("[")) for name in program.hyperparameters)
    return tuple((name, key, int(index[:-1]) if index else None) for name, key, _, index in parts)


def _lr_max(group: Group) -> float:
    """The rate that independent decay takes for the schedule's height, unless given: the highest declared or seen."""
    seen = max(float(group.get(key) or 0.0) for key in _HEIGHTS if key != "lr_max")
    group["lr_peak"] = seen
    return seen


def check_group(owner: str, rules: Sequence[Rule], transforms: Sequence[tuple[str, Applied]], group: Group) -> None:
    """Raise if a group's hyperparameters cannot be used, naming the value.

    Args:
        owner: the optimizer's name, to begin the message.
        rules: the rules that the group can call for.
        transforms: the transforms, each with the prefix of its hyperparameters' names.
        group: the group.

    Raises:
        TypeError: a value is no number.
        ValueError: a value is out of range.
    """
    if group.get("decay") is not None and not (isinstance(group["decay"], str) and group["decay"] in decay.FORMS):
        raise ValueError(f"{owner}: decay names a form, one of {', '.join(decay.FORMS)}, not {group['decay']!r}")
    for name in _HEIGHTS if group.get("decay") == "independent" else ("lr",):
        if name == "lr" or group.get(name) is not None:
            check(owner, name, group[name], 0.0, COMMON["lr"])
    check(owner, "weight_decay", group["weight_decay"], 0.0, COMMON["weight_decay"])
    for rule in rules:
        rule.check(owner, group)
    for prefix, given in transforms:
        values = {name: group[prefix + name] for name in given.transform.hyperparameters}
        given.transform.check(f"{owner}: {given.transform.name}", values)
