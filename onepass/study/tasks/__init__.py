"""The tasks that come with the library, one file each, and the door for a user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onepass.optim.names import nearest
from onepass.study.errors import StudyError
from onepass.study.task import Task
from onepass.study.tasks import airfoil, cifar10, digits, user

TASKS: dict[str, Callable[[Path | None], Task]] = {
    "digits": digits.make_task,
    "cifar10": cifar10.make_task,
    "airfoil": airfoil.make_task,
    "airfoil:concise": airfoil.make_concise_task,
}


def load(spec: str, data_dir: Path | None = None) -> Task:
    """The task that `spec` names; see `onepass.study.task.load_task`."""
    if spec.lower() in TASKS:
        return TASKS[spec.lower()](data_dir)
    if user.is_file_spec(spec):
        return user.make_task(spec)
    raise StudyError(f"unknown task {spec!r}; {nearest(spec, TASKS)} (a task of your own: path/to/task.py:make_task)")
