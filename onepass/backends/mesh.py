"""Tensors that are spread over processes (DTensor): every process computes with its own part, and sums are shared.

A rule is elementwise but for its reductions, so a shard is stepped like any tensor. What spans a tensor or the model is
summed over the processes that hold the parts, counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from onepass.compiler import Work
from onepass.lang import Level


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


def agree(works: Sequence[Work]) -> None:
    """See to it that all processes are about to step the same spread parameters, where they sum over them.

    Else the sums of one process would meet those of another parameter on the next, or wait for ever. Costs one small
    sum for each dimension of a mesh; nothing where no sum crosses processes.

    Raises:
        RuntimeError: on all processes, a parameter has a gradient on some of them only. Nothing has been changed then.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    meshes: dict[Any, list[Any]] = {}
    for work in works:
        if work.program.span < Level.ROW:
            for p in filter(is_spread, work.params):
                meshes.setdefault(p.device_mesh, []).append(p)
    for mesh, params in meshes.items():
        present = torch.tensor([p.grad is not None for p in params], dtype=torch.int32, device=local(params[0]).device)
        for i in range(mesh.ndim):
            torch.distributed.all_reduce(present, group=mesh.get_group(i))
        split = [(p, n) for p, n in zip(params, present.tolist(), strict=True) if 0 < n < mesh.size()]
        if split:
            p, n = split[0]
            raise RuntimeError(
                f"{works[0].program.name} with its transforms sums over the processes of a mesh, and {len(split)} "
                f"parameters, one of shape {tuple(p.shape)} among them, have a gradient on some processes only (that "
                f"one on {n} of {mesh.size()}): give it a gradient of zeros on the others, or set it to None on all"
            )
