"""Trials in parallel processes, each of which loads torch and the task once."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from onepass.study.errors import StudyError
from onepass.study.record import Outcome, Settings
from onepass.study.task import load_task
from onepass.study.training import fit

Key = TypeVar("Key")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Worker processes for the trials of one task; a context manager that leaves no process behind.

    A trial's numbers do not depend on `workers`: each runs alone in a process.
    """

    def __init__(self, spec: str, data_dir: Path | None, workers: int) -> None:
        self._where = (spec, data_dir)
        self._executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
        self._foreign = set(multiprocessing.active_children())

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for process in set(multiprocessing.active_children()) - self._foreign:
                process.kill()
        self._executor.shutdown(cancel_futures=True)

    def run(self, trials: Sequence[tuple[Key, Settings, bool]]) -> Iterator[tuple[Key, Outcome]]:
        """Runs (key, settings, evaluate_test) and yields (key, outcome) as each finishes, in no set order.

        StudyError if the task cannot be trained, or if a worker is killed.
        """
        with _ignore_interrupt():
            futures: dict[Future[Outcome], Key] = {
                self._executor.submit(_run, *self._where, settings, evaluate_test): key
                for key, settings, evaluate_test in trials
            }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise StudyError(
                "a worker process was killed, most likely for want of memory; finished trials are kept: "
                "run the same command with fewer --workers"
            ) from None


def _start_worker() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A worker waits for work on a pipe that it holds open itself: without this it would outlive a killed parent.
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


_load_once = functools.cache(load_task)


def _run(spec: str, data_dir: Path | None, settings: Settings, evaluate_test: bool) -> Outcome:
    return fit(_load_once(spec, data_dir), settings, evaluate_test=evaluate_test)


@contextlib.contextmanager
def _ignore_interrupt() -> Iterator[None]:
    """Processes started inside are deaf to Ctrl-C, which a terminal sends to all: the parent alone answers it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
