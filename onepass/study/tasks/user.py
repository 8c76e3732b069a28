"""A user's own task: a function in a Python file that returns a `Task`."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from onepass.optim.names import nearest
from onepass.study.errors import StudyError
from onepass.study.task import Task


def is_file_spec(spec: str) -> bool:
    """Whether `spec` means a file rather than a built-in task."""
    path, _, _ = spec.rpartition(":")
    return path.endswith(".py") or spec.endswith(".py")


def make_task(spec: str) -> Task:
    """The task that `path/to/task.py:make_task` makes; `StudyError` if any part is amiss."""
    if spec.endswith(".py"):
        raise StudyError(
            f"{spec!r} names no function; write {spec}:make_task, if make_task is the one that makes the task"
        )
    name, _, function = spec.rpartition(":")
    path = Path(name)
    if not path.is_file():
        raise StudyError(
            f"no file {name!r} for the task {spec!r}; give the path of a Python file, then : and a function"
        )
    with blaming(path, "importing it"):
        module = _import(path)
    make = getattr(module, function, None)
    if not callable(make):
        functions = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise StudyError(f"{path}: no function {function!r}; {nearest(function, functions)}")
    with blaming(path, f"{function}()"):
        task = make()
    if not isinstance(task, Task):
        raise StudyError(f"{path}: {function}() returned {type(task).__name__}, not an onepass.study.task.Task")
    return replace(task, source=path)


@contextmanager
def blaming(path: Path | None, what: str) -> Iterator[None]:
    """Turns an exception in `what` into one line that names the user's file; without a file, it passes as it is."""
    try:
        yield
    except StudyError:
        raise
    except (Exception, SystemExit) as error:
        if path is None:
            raise
        raise StudyError(f"{path}: {what} raised {type(error).__name__}: {error}{_line(error, path)}") from error


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == path.resolve():
        # A syntax error's own message already names the line.
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f" (line {lines[-1]})" if lines else ""


def _import(path: Path) -> Any:
    # A name of its own for each file, under which pickle and dataclasses can find the module again.
    name = f"onepass_user_task_{hashlib.sha1(str(path.resolve()).encode(), usedforsecurity=False).hexdigest()[:12]}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise StudyError(f"{path} cannot be imported; it must be a Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    # The file may import its neighbours, as it could when run as a script.
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
