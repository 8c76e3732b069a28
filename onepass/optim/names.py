"""Names that were not understood, and what may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase for the end of an error message: up to three near names, or all of them when none is near.

    >>> nearest("adma", ["adam", "sgd"])
    "did you mean 'adam'?"
    >>> nearest("zzz", ["adam", "sgd"])
    'known: adam, sgd'
    """
    names = sorted(set(known))
    near = difflib.get_close_matches(name.lower(), names)
    if near:
        return f"did you mean {' or '.join(repr(each) for each in near)}?"
    return f"known: {', '.join(names) or 'none'}"
