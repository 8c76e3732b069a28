"""What a study says when it cannot go on: one line, with the offending value and the remedy."""

from __future__ import annotations


class StudyError(Exception):
    """A mistake that its maker can mend: the command line prints it as one line and exits with code 2."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class Interrupted(Exception):
    """Ctrl-C during a run or a comparison; its text says what is saved and how to go on."""
