"""Schedules in parameter groups.

A group holds the plain current value under the hyperparameter's name, where torch's tools read it. The schedule stands
beside it as plain data, which any checkpoint can hold, in ``group["schedules"]`` under the same name (``"betas[0]"``
for the first of a tuple), and ``group["schedule_step"]`` counts the optimizer's steps since the group was added. A step
that was skipped does not count.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from onepass.groups import Group
from onepass.lang import COMMON, check
from onepass.schedules import Schedule, from_state


def cases(group: Group) -> Iterator[Group]:
    """A group as it will stand at each landmark of its schedules, so that all it comes to can be checked beforehand."""
    settled = dict(group)
    adopt(settled)
    yield settled
    for name, schedule in _schedules(settled).items():
        for value in schedule.landmarks:
            case = dict(settled)
            _put(case, name, value)
            yield case


def adopt(group: Group) -> bool:
    """Move the schedules that stand in a group beside its numbers, and tell whether there were any."""
    found = dict(_given(group))
    if not found:
        return False
    replaced = {name.partition("[")[0] for name in found}
    kept = {name: data for name, data in group.get("schedules", {}).items() if name.partition("[")[0] not in replaced}
    group["schedules"] = {**kept, **{name: schedule.to_state() for name, schedule in found.items()}}
    group.setdefault("schedule_step", 0)
    for name, schedule in found.items():
        _put(group, name, schedule(group["schedule_step"] + 1))
    if "lr_peak" in group and "lr" in group:
        group["lr_peak"] = max(group["lr_peak"], peak(group))
    return True


def inherit(group: Group, defaults: Mapping[str, Any], owner: str) -> None:
    """Settle a group that is about to be added: what it does not say follows the schedules of the defaults.

    Raises:
        TypeError, ValueError: what it says of schedules in plain data, as a group does that another optimizer has held,
            cannot be gone on with; the message names the key.
    """
    _check_carried(owner, {**defaults, **group})
    for name, _ in _given(defaults):
        key = name.partition("[")[0]
        group.setdefault(key, defaults[key])
    if "schedules" in group:
        group["schedules"] = dict(group["schedules"])
        group.setdefault("schedule_step", 0)
    adopt(group)


def peak(group: Mapping[str, Any]) -> float:
    """The highest learning rate that a group will come to."""
    schedule = _schedules(group).get("lr")
    return max(schedule.landmarks) if schedule else float(group["lr"])


def begin(owner: str, groups: Sequence[Group], check: Callable[[Group], None]) -> None:
    """Put the values of the step about to be taken into the groups that have schedules.

    Raises:
        ValueError: a scheduled hyperparameter was changed from outside, or ``check`` finds a new schedule wrong.
    """
    for group in groups:
        if "schedules" in group:
            step = group["schedule_step"]
            coming: dict[str, float] = {}
            for name, schedule in _schedules(group).items():
                held, coming[name] = _get(group, name), schedule(step + 1)
                if not _is_due(held, coming[name], schedule, step):
                    if checked_adopt(group, check):
                        return begin(owner, groups, check)
                    raise ValueError(_conflict(owner, group, name, schedule, held))
            for name, value in coming.items():
                _put(group, name, value)
    return None


def finish(groups: Iterable[Group]) -> None:
    """Count the step that was taken."""
    for group in groups:
        if "schedules" in group:
            group["schedule_step"] += 1


def checked_adopt(group: Group, check: Callable[[Group], None]) -> bool:
    """As `adopt`, of schedules that were put into a group later, which ``check`` has not seen."""
    if not any(_given(group)):
        return False
    for case in cases(group):
        check(case)
    return adopt(group)


def settle_loaded(owner: str, before: Sequence[frozenset[str]], groups: Sequence[Group]) -> None:
    """Settle the groups that a checkpoint gave, and warn of schedules that it has put plain numbers in the place of."""
    for group, names in zip(groups, before, strict=True):
        adopt(group)
        for name in sorted(names - scheduled(group)):
            key = name.partition("[")[0]
            warnings.warn(
                f"{owner}: the checkpoint has no schedule for {name}, which had one: it stays {_get(group, name)}, as "
                f"the checkpoint says; to schedule it all the same, assign group[{key!r}] after loading",
                stacklevel=3,
            )


def scheduled(group: Mapping[str, Any]) -> frozenset[str]:
    """The names of a group's hyperparameters that have a schedule."""
    return frozenset(group.get("schedules", ()))


def _check_carried(owner: str, group: Group) -> None:
    step, states = group.get("schedule_step", 0), group.get("schedules", {})
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise ValueError(f"{owner}: schedule_step counts steps, 0 or more, and is {step!r}")
    if not isinstance(states, dict):
        raise TypeError(f"{owner}: a group's schedules are a dict of the states of schedules, not {states!r}")
    if isinstance(group.get("lr_peak"), Schedule):
        raise TypeError(f"{owner}: lr_peak takes a number, not {group['lr_peak']!r}")
    if "lr_peak" in group:
        check(owner, "lr_peak", group["lr_peak"], 0.0, COMMON["lr"])
    for name, state in states.items():
        schedule = from_state(state)
        try:
            held = _get(group, name)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise ValueError(f"{owner}: a group has a schedule for {name!r}, which it does not have itself") from None
        if not isinstance(held, Schedule) and not _is_due(held, schedule(step + 1), schedule, step):
            raise ValueError(_conflict(owner, group, name, schedule, held))


def _is_due(held: Any, coming: float, schedule: Schedule, step: int) -> bool:
    # Before the first step, and after one that was skipped or raised, the coming value is there already.
    return held == coming or held == schedule(max(step, 1))


def _conflict(owner: str, group: Group, name: str, schedule: Schedule, held: Any) -> str:
    who = "a torch scheduler, or other code," if "initial_lr" in group else "other code"
    return (
        f"{owner}: {name} follows {schedule!r}, and {who} has set it to {held!r} meanwhile; use one of the two: leave "
        f"the other out, or the schedule: del group['schedules'][{name!r}]"
    )


def _schedules(group: Mapping[str, Any]) -> dict[str, Schedule]:
    return {name: from_state(data) for name, data in group.get("schedules", {}).items()}


def _given(group: Mapping[str, Any]) -> Iterator[tuple[str, Schedule]]:
    """The schedules that stand in a group where numbers belong."""
    for key, value in group.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Schedule):
            yield key, value
        elif isinstance(value, (tuple, list)) and key != "params":
            yield from ((f"{key}[{i}]", part) for i, part in enumerate(value) if isinstance(part, Schedule))


def _get(group: Mapping[str, Any], name: str) -> Any:
    key, _, index = name.partition("[")
    return group[key][int(index[:-1])] if index else group[key]


def _put(group: Group, name: str, value: float) -> None:
    key, _, index = name.partition("[")
    if index:
        at = int(index[:-1])
        group[key] = (*group[key][:at], value, *group[key][at + 1 :])
    else:
        group[key] = value
