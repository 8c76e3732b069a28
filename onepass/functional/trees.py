"""Nested dicts, lists and tuples of arrays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with the path that leads to it, such as ``['layer'][0]``; None is an empty place, not a leaf."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}[{key!r}]")
    elif isinstance(tree, (list, tuple)):
        for i, value in enumerate(tree):
            yield from leaves(value, f"{path}[{i}]")
    elif tree is not None:
        yield path, tree


def rebuilt(tree: Any, new: Iterator[Any]) -> Any:
    """A tree of the same form with its leaves taken from ``new``."""
    if isinstance(tree, Mapping):
        return _like(tree, {key: rebuilt(value, new) for key, value in tree.items()})
    if isinstance(tree, (list, tuple)):
        return _like(tree, [rebuilt(value, new) for value in tree])
    return None if tree is None else next(new)


def _like(tree: Any, content: Any) -> Any:
    if isinstance(tree, dict):
        # Not made anew: a defaultdict, or a class of one's own, may want more than its content.
        like = copy.copy(cast("dict[Any, Any]", tree))
        like.update(content)
        return like
    make: Callable[..., Any] = type(tree)
    return make(*content) if hasattr(tree, "_fields") else make(content)


def matched(params: Any, other: Any, what: str, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves of two trees side by side.

    Raises:
        ValueError: the trees differ in form; the message says where, and calls ``other`` by the name ``what``.
    """
    if isinstance(params, Mapping):
        if not isinstance(other, Mapping):
            raise ValueError(f"params{path} is a dict, and {what}{path} is {_described(other)}")
        for key in params:
            if key not in other:
                raise ValueError(f"{what}{path} lacks the key {key!r}; it has {', '.join(map(repr, other)) or 'none'}")
        for key in other:
            if key not in params:
                raise ValueError(f"{what}{path} has the key {key!r}, which params{path} lacks")
        for key, value in params.items():
            yield from matched(value, other[key], what, f"{path}[{key!r}]")
    elif isinstance(params, (list, tuple)):
        if not isinstance(other, (list, tuple)):
            raise ValueError(f"params{path} is a {type(params).__name__}, and {what}{path} is {_described(other)}")
        if len(params) != len(other):
            raise ValueError(f"params{path} has {len(params)} entries, and {what}{path} has {len(other)}")
        for i, (mine, theirs) in enumerate(zip(params, other, strict=True)):
            yield from matched(mine, theirs, what, f"{path}[{i}]")
    elif params is None:
        if other is not None:
            raise ValueError(f"params{path} is None, and {what}{path} is {_described(other)}")
    elif other is None:
        raise ValueError(
            f"{what}{path} is missing (None): every parameter needs one; "
            "leave a parameter that is not trained out of params"
        )
    elif isinstance(other, (Mapping, list, tuple)):
        raise ValueError(f"params{path} is {_described(params)}, and {what}{path} is {_described(other)}")
    else:
        yield path, params, other


def _described(x: Any) -> str:
    if x is None:
        return "None"
    shape = getattr(x, "shape", None)
    return f"a {type(x).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")
