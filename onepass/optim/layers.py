"""The layers of a model, found from how its modules are nested."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def layers_of(model: nn.Module, names: Sequence[str]) -> tuple[dict[str, int], int]:
    """The layer of each parameter, as `onepass.param_groups` says that they are found.

    Args:
        model: the model.
        names: its parameters' names, in the order of ``named_parameters()``.

    Returns:
        For each name its layer, from 0, and the number of the last layer.

    Raises:
        ValueError: the model has no stack.
    """
    blocks = _blocks(model, "")
    if not blocks:
        raise ValueError(
            f"param_groups: {type(model).__name__} has no nn.ModuleList or nn.Sequential of two children or more of "
            "one class, whose depth layer_decay could follow; name the layers: layers=['stem.*', 'body.*', 'head.*']"
        )
    number = {path: i for i, path in enumerate(blocks, start=1)}
    depths: dict[str, int] = {}
    behind = 0
    ends = max(i for i, name in enumerate(names) if _block_of(name, number))
    for i, name in enumerate(names):
        inside = _block_of(name, number)
        behind = inside or behind
        depths[name] = behind if i <= ends else len(blocks) + 1
    return depths, max(depths.values())


def _blocks(module: nn.Module, path: str) -> list[str]:
    """The paths of the children of every outermost stack in a module, in order."""
    children = [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]
    paths = [f"{path}.{name}" if path else name for name, _ in children]
    classes = {type(child) for _, child in children}
    if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(children) > 1 and len(classes) == 1:
        return paths
    return [block for (_, child), below in zip(children, paths, strict=True) for block in _blocks(child, below)]


def _block_of(name: str, number: dict[str, int]) -> int:
    """The number of the block that a parameter lies in, or 0."""
    parts = name.split(".")
    return next((number[path] for i in range(1, len(parts)) if (path := ".".join(parts[:i])) in number), 0)
