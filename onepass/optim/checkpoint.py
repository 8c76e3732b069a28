"""Loading states: in the order of names, in the types they were saved in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from onepass.groups import Group

_SHOWN = 4


def in_the_order_of_names(owner: str, groups: Sequence[Group], loaded: dict[str, Any]) -> dict[str, Any]:
    """A state dict whose parameters stand where the optimizer's parameters of the same names stand.

    Without names on both sides it is returned as it is: parameters are then told apart by their order, as in torch.

    Raises:
        ValueError: the names are not the same; the message lists some of those that are missing and too many.
    """
    saved = loaded["param_groups"]
    if not all("param_names" in group for group in (*groups, *saved)):
        return loaded
    ours = [name for group in groups for name in group["param_names"]]
    theirs = [name for group in saved for name in group["param_names"]]
    if ours == theirs:
        return loaded
    repeated = sorted({name for names in (ours, theirs) for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"{owner}: the checkpoint's parameters come in another order, and {_some(repeated)} names several of them; "
            "give every parameter a name of its own"
        )
    ids = {name: index for group in saved for name, index in zip(group["param_names"], group["params"], strict=True)}
    missing, unknown = [n for n in ours if n not in ids], [n for n in ids if n not in set(ours)]
    if missing or unknown:
        raise ValueError(
            f"{owner}: the checkpoint's parameters are not this optimizer's: it lacks {_some(missing)} and has "
            f"{_some(unknown)}, which this optimizer does not have. Build the same model, or load without names"
        )
    reordered = [
        {**theirs, "params": [ids[name] for name in group["param_names"]], "param_names": list(group["param_names"])}
        for group, theirs in zip(groups, saved, strict=False)
    ]
    return {**loaded, "param_groups": reordered + list(saved[len(reordered) :])}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return shown + more if names else "none"


def restore(
    groups: Sequence[Group], state: dict[Any, Any], loaded: dict[str, Any], on_host: Sequence[frozenset[str]]
) -> None:
    """Put the loaded states in as they were saved: torch has cast them to their parameters' types.

    Args:
        groups: the optimizer's groups.
        state: the optimizer's states, to be changed.
        loaded: the state dict.
        on_host: for each group the keys of the states that are numbers on the host.
    """
    for group, saved, keys in zip(groups, loaded["param_groups"], on_host, strict=True):
        for p, index in zip(group["params"], saved["params"], strict=True):
            for key, value in loaded["state"].get(index, {}).items():
                if isinstance(value, torch.Tensor):
                    device = torch.device("cpu") if key in keys else p.device
                    state[p][key] = value.detach().clone().to(device)
