"""What the constructors take, and what they make of it."""

from __future__ import annotations

from typing import Any

import torch

from onepass.lang import Applied

Number = float | torch.Tensor
Decay = float | torch.Tensor | Applied


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """A constructor's arguments as the defaults of its parameter groups."""
    return {name: value for name, value in arguments.items() if name not in ("self", "params", "__class__")}


def check_agreement(owner: str, weight_decay: Decay, decoupled: bool) -> None:
    """Raise ValueError if torch's flag contradicts the form of decay that is given outright."""
    if decoupled and isinstance(weight_decay, Applied) and weight_decay.transform.name != "decoupled":
        raise ValueError(
            f"{owner}: decoupled_weight_decay=True contradicts weight_decay={weight_decay!r}; leave one of them out"
        )
