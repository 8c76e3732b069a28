"""torch, as an array library: autograd follows the step unless it is told not to."""

from __future__ import annotations

from typing import Any

import torch

from onepass.functional.library import Library


class Torch(Library):
    """Torch's tensors."""

    name = "torch"
    xp = torch

    def dtype(self, x: Any) -> str:
        return str(x.dtype).partition(".")[2]

    def cast(self, x: Any, dtype: str) -> Any:
        return x.to(getattr(torch, dtype))

    def filled(self, x: Any, value: float, dtype: str) -> Any:
        return torch.full_like(x, value, dtype=getattr(torch, dtype), requires_grad=False)


def library(package: str) -> Library:
    """The library that serves arrays of this package."""
    return Torch()
