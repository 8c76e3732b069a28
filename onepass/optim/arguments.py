"""What the constructors take, and what they make of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from onepass.lang import Applied
from onepass.schedules import Schedule

Number = float | torch.Tensor
Decay = float | torch.Tensor | Applied


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """A constructor's arguments as the defaults of its parameter groups."""
    return {name: value for name, value in arguments.items() if name not in ("self", "params", "__class__")}


def check_agreement(owner: str, weight_decay: Decay, decoupled: bool) -> None:
    """Raise ValueError if torch's flag contradicts the form of decay that is given outright."""
    flag: dict[str, Any] = {"decoupled_weight_decay": decoupled}
    settle_flags(owner, flag)
    outright = isinstance(weight_decay, Applied) and weight_decay.transform.name != "decoupled"
    if outright and flag["decoupled_weight_decay"]:
        raise ValueError(
            f"{owner}: decoupled_weight_decay=True contradicts weight_decay={weight_decay!r}; leave one of them out"
        )


FLAGS = (
    "maximize", "foreach", "fused", "capturable", "differentiable", "skip_nonfinite",
    "amsgrad", "nesterov", "centered", "decoupled_weight_decay",
)  # fmt: skip
# Where torch's None asks for its own choice.
_OR_NONE = ("foreach", "fused")
# What holds for the whole optimizer: a group that said otherwise would be ignored.
_OF_THE_OPTIMIZER = ("transforms", "backend", "skip_nonfinite")
_THE_SAME_IN_ALL_GROUPS = ("fused", "capturable", "differentiable")


def settle_flags(owner: str, group: dict[str, Any]) -> None:
    """Turn what stands for True or False (1, ``numpy.True_``, a tensor of one element) into it; None stands for False.

    Raises:
        TypeError: a flag is none of them; a string such as "no" would count as True.
    """
    for name in FLAGS:
        value = group.get(name, False)
        if isinstance(value, bool) or (value is None and name in _OR_NONE):
            continue
        if value is None:
            group[name] = False
            continue
        number = _plain(value)
        if isinstance(number, torch.Tensor) and number.numel() == 1 and not number.is_meta:
            number = number.item()
        if not isinstance(number, (bool, int, float)) or number not in (0, 1):
            raise TypeError(f"{owner}: {name} takes True or False, not {value!r}")
        group[name] = bool(number)


def settle_numbers(group: dict[str, Any]) -> None:
    """Turn numbers of other libraries into Python's, for a checkpoint of NumPy's is not safe to load; tensors stay."""
    for name, value in group.items():
        if name != "params":
            several = type(value) in (tuple, list)
            group[name] = type(value)([_plain(part) for part in value]) if several else _plain(value)


def _plain(value: Any) -> Any:
    """A number as a Python number, and everything else as it is: what cannot be used is somebody else's to refuse."""
    if isinstance(value, (torch.Tensor, Schedule, Applied, str)) or type(value) in (bool, int, float):
        return value
    try:
        number = value.item() if hasattr(value, "item") else float(value)
    except Exception:
        return value
    return number if isinstance(number, (bool, int, float)) else value


def as_transforms(owner: str, given: Any) -> tuple[Any, ...]:
    """The transforms as a tuple, each still to be checked."""
    try:
        entries = None if isinstance(given, (str, bytes, Mapping)) else iter(given)
    except TypeError:
        entries = None
    if entries is None:
        raise TypeError(f"{owner}: transforms takes a list such as [lookahead(k=5)], not {given!r}")
    return tuple(entries)


def check_backend(owner: str, backend: Any) -> None:
    """Raise unless ``backend`` is None or a name."""
    if backend is not None and not isinstance(backend, str):
        raise TypeError(f"{owner}: backend takes a name such as 'reference', or None, not {backend!r}")


def as_params(owner: str, params: Any, what: str = "params") -> Any:
    """Parameters as a list of tensors, ``(name, tensor)`` pairs or groups; what it holds is still to be checked.

    Raises:
        TypeError: it cannot be listed, or is a dict, of which a list would have the keys.
    """
    # Torch has errors of its own for a tensor, and for a set in a group.
    if isinstance(params, (torch.Tensor, set)):
        return params
    if isinstance(params, Mapping) and any(isinstance(key, str) for key in params):
        remedy = "put the group into a list: [{...}]" if "params" in params else "take its .items() or .values()"
        raise TypeError(f"{owner}: {what} takes a list, not a dict with the keys {_some(params)}; {remedy}")
    if isinstance(params, (str, bytes)) or not (hasattr(params, "__iter__") or hasattr(params, "__getitem__")):
        remedy = "; pass its parameters()" if hasattr(params, "parameters") else "; call it" * callable(params)
        raise TypeError(f"{owner}: {what} takes a list of tensors, not {shown(params)}{remedy}")
    return list(params)


def settle_group(owner: str, group: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check what a parameter group holds beside its hyperparameters, and list its parameters.

    Raises:
        TypeError: ``params`` holds what is neither a tensor nor a pair of a name and a tensor; a name is no string.
        ValueError: there are no ``params``, or the group says what can be said of the whole optimizer alone.
    """
    if "params" not in group:
        raise ValueError(f"{owner}: a parameter group needs 'params'; this one has {_some(group)}")
    group["params"] = as_params(owner, group["params"], "params of a group")
    for each in group["params"] if isinstance(group["params"], list) else ():
        named = isinstance(each, tuple) and len(each) == 2 and isinstance(each[0], str)
        if isinstance(each, tuple) and not named:
            raise TypeError(f"{owner}: params takes tensors or (name, tensor) pairs, not {shown(each)}")
    names = group.get("param_names")
    if names is not None and not (isinstance(names, (list, tuple)) and len(names) == len(group["params"])):
        raise ValueError(f"{owner}: param_names names each of {len(group['params'])} params, not {names!r}")
    for name in _OF_THE_OPTIMIZER:
        if name in group:
            raise ValueError(f"{owner}: {name} holds for the whole optimizer, not for a group: pass {name}= beside it")
    settle_flags(owner, group)
    for name in _THE_SAME_IN_ALL_GROUPS:
        if name in group and bool(group[name]) != bool(defaults.get(name)):
            raise ValueError(
                f"{owner}: a group has {name}={group[name]} and the optimizer {name}={defaults.get(name)}; it holds "
                f"for all groups: pass {name}= beside them"
            )


def keep_one_of_each(group: dict[str, Any]) -> None:
    """Drop parameters that are listed twice, of which torch warns, and their second names: each steps once."""
    first = {p: i for i, p in reversed(list(enumerate(group["params"])))}
    for key in {"params", "param_names"} & group.keys():
        group[key] = [group[key][i] for i in sorted(first.values())]


def fill(owner: str, key: str, state: torch.Tensor, value: Any) -> None:
    """Give a state its initial value: a tensor or a number.

    Raises:
        ValueError: the state's type cannot hold the number.
    """
    if isinstance(value, torch.Tensor):
        state.copy_(value)
    elif abs(value) > torch.finfo(state.dtype).max and math.isfinite(value):
        raise ValueError(f"{owner}: the state {key} would start at {value:g}, which {state.dtype} cannot hold")
    else:
        state.fill_(value)


def _some(keys: Iterable[Any]) -> str:
    listed = [repr(key) for key in keys]
    return ", ".join(listed[:4]) + ", ..." * (len(listed) > 4) if listed else "none"


def shown(value: Any) -> str:
    """A value for a message: its text on one line if that is short, and its type."""
    text = " ".join(repr(value).split())
    return f"{text} ({type(value).__name__})" if len(text) <= 60 else f"{text[:57]}... ({type(value).__name__})"
