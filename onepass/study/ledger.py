"""The finished trials of a comparison, one JSON line each, so that a stopped one goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sized
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

import onepass
from onepass.backends.select import choose
from onepass.study.environment import versions
from onepass.study.errors import StudyError
from onepass.study.record import Outcome, Settings
from onepass.study.task import Task

# The parts of the package whose source decides the numbers of a trial, beside the task's own file.
_NUMERIC_PARTS = ("lang", "compiler", "rules", "transforms", "backends", "optim", "study/tasks")
_NUMERIC_FILES = ("batches", "optimizers", "record", "schedule", "task", "training")


def trial_key(task: str, settings: Settings, evaluate_test: bool) -> str:
    """A digest of all that determines a trial's numbers.

    task: what `task_fingerprint` returned. Two trials with one key are the same computation: same task, settings,
    versions of Python and the packages that compute, backend, and source of this package.
    """
    determined_by = {
        "task": task,
        "settings": settings.to_json(),
        "evaluate_test": evaluate_test,
        "versions": versions(),
        "backend": choose(None),
        "source": _package_digest(),
    }
    return _digest(json.dumps(determined_by, sort_keys=True).encode())


def task_fingerprint(task: Task) -> str:
    """A digest of the task's name, of the user's file that it comes from, and of its data.

    Tensors count by content, other data sets by their length, and what the user's file imports not at all: after a
    change there, start in a new folder.
    """
    digest = hashlib.sha256(task.name.encode())
    digest.update(task.source.read_bytes() if task.source else b"")
    for data in (task.train, task.validation, task.test):
        examples = data.dataset if isinstance(data, DataLoader) else data
        if isinstance(examples, TensorDataset):
            for tensor in examples.tensors:
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        elif isinstance(examples, Sized):
            digest.update(str(len(examples)).encode())
    return digest.hexdigest()[:24]


@cache
def _package_digest() -> str:
    root = Path(onepass.__file__).parent
    files = [path for part in _NUMERIC_PARTS for path in (root / part).rglob("*.py")]
    files += [root / "study" / f"{name}.py" for name in _NUMERIC_FILES]
    return _digest(b"\0".join(str(path.relative_to(root)).encode() + path.read_bytes() for path in sorted(files)))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]


class Ledger:
    """Outcomes by trial key, kept in a file of JSON lines that is only ever appended to."""

    def __init__(self, path: Path) -> None:
        """Reads `path`, if it exists: a last line that a crash cut short is dropped, any other raises StudyError."""
        self.path = path
        self._outcomes = dict(self._read())

    def __contains__(self, key: str) -> bool:
        return key in self._outcomes

    def __getitem__(self, key: str) -> Outcome:
        return self._outcomes[key]

    def add(self, key: str, about: dict[str, Any], outcome: Outcome) -> None:
        """Appends one finished trial; `about` is for the reader of the file."""
        line = json.dumps({"key": key, **about, "outcome": outcome.to_json()}) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        self._outcomes[key] = outcome

    def _read(self) -> Iterator[tuple[str, Outcome]]:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            # Cut off now: the next line appended would otherwise be glued to the torn one.
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record = json.loads(line)
                yield record["key"], Outcome.from_json(record["outcome"])
            except (ValueError, KeyError, TypeError) as error:
                raise StudyError(
                    f"{self.path}, line {number} is not a trial ({type(error).__name__}); delete that line, or the file"
                ) from error
