"""Transforms and forms of weight decay as plain data, which a saved model can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onepass import transforms
from onepass.lang import Applied
from onepass.transforms import decay


def as_config(given: Applied) -> dict[str, Any]:
    """A transform as data: ``{"kind": "transform", "name": "clip_norm", "values": {"max_norm": 1.0}}``."""
    is_decay = decay.FORMS.get(given.transform.name) is given.transform
    return {"kind": "decay" if is_decay else "transform", "name": given.transform.name, "values": given.values}


def applied(config: Mapping[str, Any], find: Callable[[str], Any]) -> Applied:
    """The transform that `as_config` made data of.

    Args:
        config: the data.
        find: gives a user's own transform by its name, or None.

    Raises:
        ValueError: there is no transform of that name.
    """
    name, values = config["name"], dict(config["values"])
    if config["kind"] == "decay":
        return decay.FORMS[name](**values)
    transform = getattr(transforms, name) if name in transforms.__all__ else find(name)
    if transform is None:
        raise ValueError(f"unknown transform {name!r}: pass custom_objects={{{name!r}: the transform}} to load it")
    return transform(**values)
