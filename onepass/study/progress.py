"""How far a comparison is: a bar where there is a terminal, a line now and then where there is none."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINES = 10


class Progress:
    """Counts trials done out of `total`; a context manager."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0
        self._fresh = 0
        self._started = time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._line = self._bar.add_task("tuning", total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, count: int, stage: str, kept: bool) -> None:
        """`count` more trials of a stage are done; `kept`: by an earlier command."""
        before, self._done = self._done, self._done + count
        self._fresh += 0 if kept else count
        if kept:
            self._console.print(f"{count} {stage} trials are already done")
        self._bar.update(self._line, advance=count, description=stage)
        if not self._console.is_terminal and before * LINES // self._total < self._done * LINES // self._total:
            self._console.print(f"{stage}: {self._done} of {self._total} trials done, {self._left()}", soft_wrap=True)

    def _left(self) -> str:
        if self._done == self._total:
            return f"in {time.monotonic() - self._started:.0f} s"
        if not self._fresh:
            return "the rest to do"
        seconds = (time.monotonic() - self._started) / self._fresh * (self._total - self._done)
        return f"about {seconds:.0f} s left" if seconds < 120 else f"about {seconds / 60:.0f} min left"
