"""Tensors that are spread over processes (DTensor): every process computes with its own part, and sums are shared.

A rule is elementwise but for its reductions, so a shard is stepped like any tensor. What spans a tensor or the model is
summed over the processes that hold the parts, counted once.
"""

from __future__ import annotations

from typing import Any

import torch


def local(x: Any) -> Any:
    """This process's part of a tensor; a plain tensor is its own."""
    return x.to_local() if hasattr(x, "to_local") else x


def is_spread(x: Any) -> bool:
    """Whether a tensor is a DTensor."""
    return hasattr(x, "placements")


def groups(x: Any) -> tuple[Any, ...]:
    """The process groups over which a tensor is cut into parts; copies on other processes do not count."""
    if not hasattr(x, "placements"):
        return ()
    return tuple(x.device_mesh.get_group(i) for i, placement in enumerate(x.placements) if placement.is_shard())


def obstacle(x: Any, rows_matter: bool) -> str | None:
    """Why a spread tensor cannot be stepped, or None if it can."""
    for placement in getattr(x, "placements", ()):
        if placement.is_partial():
            return f"a parameter has the placement {placement}, whose parts are sums: redistribute it first"
        if rows_matter and placement.is_shard() and placement.dim != 0:
            return f"a parameter has the placement {placement}, which cuts the rows that the rule reduces over"
    return None


def add_up(sums: torch.Tensor, over: tuple[Any, ...]) -> None:
    """Add to ``sums`` those of the other processes, in place. All of them must call this in the same order."""
    for group in over:
        torch.distributed.all_reduce(sums, group=group)
