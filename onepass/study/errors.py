"""What a study says when it cannot go on: one line, with the offending value and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StudyError(Exception):
    """A mistake that its maker can mend: the command line prints it as one line and exits with code 2."""

    def __str__(self) -> str:
        return one_line(super().__str__())


def one_line(text: object) -> str:
    """The text with every run of white space, line ends included, as one space."""
    return " ".join(str(text).split())


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase for the end of an error message: the nearest known name, or all of them when none is near.

    >>> nearest("adma", ["adam", "sgd"])
    "did you mean 'adam'?"
    >>> nearest("zzz", ["adam", "sgd"])
    'known: adam, sgd'
    """
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(each) for each in near)}?"
    return f"known: {', '.join(names) or 'none'}"
