"""Transforms and forms of weight decay as plain data, which a saved model can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onepass import transforms
from onepass.lang import Applied
from onepass.transforms import decay


def as_config(given: Applied) -> dict[str, Any]:
    """A transform as data: ``{"transform": "clip_norm", "max_norm": 1.0}``."""
    kind = "decay" if decay.FORMS.get(given.transform.name) is given.transform else "transform"
    return {kind: given.transform.name, **given.values}


def applied(config: Mapping[str, Any], find: Callable[[str], Any]) -> Applied:
    """The transform that `as_config` made data of.

    Args:
        config: the data.
        find: gives a user's own transform by its name, or None.

    Raises:
        ValueError: there is no transform of that name.
    """
    values = dict(config)
    if "decay" in values:
        return decay.FORMS[values.pop("decay")](**values)
    name = values.pop("transform")
    transform = getattr(transforms, name, None) if name in transforms.__all__ else find(name)
    if transform is None:
        raise ValueError(f"unknown transform {name!r}: pass custom_objects={{{name!r}: the transform}} to load it")
    return transform(**values)
