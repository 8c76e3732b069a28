"""One run on the terminal: a bar while it trains, a line for each epoch, the held-out result at the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from onepass.study import checkpoint as checkpoints
from onepass.study.errors import Interrupted, StudyError
from onepass.study.record import Epoch, Outcome, Settings
from onepass.study.task import Task
from onepass.study.training import fit


def default_checkpoint(task: Task) -> Path:
    """Where `onepass train` saves its checkpoint unless told otherwise."""
    return Path("runs") / re.sub(r"[^\w.]+", "-", task.name) / "checkpoint.pt"


def settings_for(task: Task, given: dict[str, Any], checkpoint: Path, resume: bool) -> Settings:
    """The settings of a run: what was given, over those of the run to be resumed or else those of the task."""
    start = checkpoints.read_settings(checkpoint) if resume else Settings(task.optimizer, task.epochs)
    return replace(start, **given)


def run(
    task: Task,
    settings: Settings,
    console: Console,
    *,
    checkpoint: Path,
    resume: bool = False,
    tensorboard: Path | None = None,
) -> Outcome:
    """Trains, says so on the console as it goes, and leaves a checkpoint.

    `StudyError` also for a run that diverges; `Interrupted` for Ctrl-C.
    """
    say = _speaker(console)
    done = 0
    with _bar(console) as on_step, _scalars(tensorboard, task) as (log_step, log_epoch):

        def started() -> None:
            say(_headline(task, settings))
            if task.notes:
                say(f"note: {task.notes}")

        def step_taken(step: int, total: int, loss: float) -> None:
            on_step(step, total)
            log_step(step, loss)

        def epoch_ended(epoch: Epoch) -> None:
            nonlocal done
            done = epoch.epoch
            say(_epoch_line(task, settings, epoch))
            log_epoch(epoch)

        try:
            outcome = fit(
                task,
                settings,
                on_start=started,
                on_step=step_taken,
                on_epoch=epoch_ended,
                checkpoint=checkpoint,
                resume=resume,
            )
        except KeyboardInterrupt:
            raise Interrupted(_where_it_stopped(done, resume, checkpoint)) from None
    if outcome.diverged:
        raise StudyError(_divergence(outcome, checkpoint))
    for line in _summary(task, settings, outcome, checkpoint):
        say(line)
    return outcome


def _speaker(console: Console) -> Callable[[str], None]:
    def say(line: str) -> None:
        # A line is for reading and for grep alike: never wrapped, never coloured by guesswork.
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    return say


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    if not console.is_terminal:
        yield lambda step, total: None
        return
    columns = (TextColumn("step {task.completed}/{task.total}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("training", visible=False)
        yield lambda step, total: progress.update(bar, completed=step, total=total, visible=True)


@contextmanager
def _scalars(folder: Path | None, task: Task) -> Iterator[tuple[Callable[[int, float], None], Callable[[Epoch], None]]]:
    if folder is None:
        yield (lambda step, loss: None), (lambda epoch: None)
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise StudyError(
            "--tensorboard needs the package tensorboard; install it with pip install 'onepass[tensorboard]'"
        ) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writer = SummaryWriter(str(folder))
    except OSError as error:
        raise StudyError(
            f"cannot write to --tensorboard {folder} ({error.strerror or error}); name another place"
        ) from error

    def log_epoch(epoch: Epoch) -> None:
        writer.add_scalar("loss/train", epoch.train_loss, epoch.step)
        writer.add_scalar("loss/validation", epoch.validation_loss, epoch.step)
        writer.add_scalar(f"{task.metric.name}/validation", epoch.validation_metric, epoch.step)
        writer.add_scalar("lr", epoch.lr, epoch.step)

    try:
        yield (lambda step, loss: writer.add_scalar("loss/step", loss, step)), log_epoch
    finally:
        writer.close()


def _headline(task: Task, settings: Settings) -> str:
    def name(optimizer: str, lr: float | None) -> str:
        own = task.lr if optimizer.lower() == task.optimizer.lower() else None
        shown = lr if lr is not None else own
        return optimizer if shown is None else f"{optimizer} (lr {shown:g})"

    second = f", then {name(settings.then.optimizer, settings.then.lr)}" if settings.then else ""
    return (
        f"{task.name}: {name(settings.optimizer, settings.lr)}{second}, schedule {settings.schedule}, "
        f"{settings.epochs} epochs, seed {settings.seed}, on {settings.device}"
    )


def _epoch_line(task: Task, settings: Settings, epoch: Epoch) -> str:
    width = len(str(settings.epochs))
    which = f"  {epoch.optimizer}" if settings.then else ""
    return (
        f"epoch {epoch.epoch:{width}d}/{settings.epochs}  train loss {epoch.train_loss:.5f}  "
        f"validation loss {epoch.validation_loss:.5f}  {task.metric.name} {epoch.validation_metric:.5f}  "
        f"lr {epoch.lr:.3g}  {epoch.seconds:.1f} s{which}"
    )


def _summary(task: Task, settings: Settings, outcome: Outcome, checkpoint: Path) -> Iterator[str]:
    if settings.then is not None:
        yield _when_it_switched(settings, outcome)
    assert outcome.test_metric is not None
    yield f"test loss {outcome.test_loss:.5f}  {task.metric.name} {outcome.test_metric:.5f}"
    if task.optimum is not None:
        gap = abs(outcome.test_metric - task.optimum)
        yield f"best possible {task.metric.name} {task.optimum:.5f}: a gap of {gap:.5f}"
    compiled = ", with the compiling of its kernels" if len(outcome.history) == 1 else ""
    yield (
        f"{outcome.steps} steps in {outcome.seconds:.1f} s; a step of the optimizer takes "
        f"{1e3 * outcome.step_seconds:.3f} ms, {outcome.step_share:.0%} of that{compiled}; checkpoint {checkpoint}"
    )


def _when_it_switched(settings: Settings, outcome: Outcome) -> str:
    assert settings.then is not None
    first = [epoch for epoch in outcome.history if epoch.optimizer == settings.optimizer]
    if len(first) == len(outcome.history):
        return (
            f"{settings.optimizer} never went {settings.then.patience} epochs without improving: "
            f"{settings.then.optimizer} was not used"
        )
    best = min(first, key=lambda epoch: epoch.validation_loss)
    return (
        f"{settings.optimizer} stopped improving: {settings.then.optimizer} took over after epoch {first[-1].epoch}, "
        f"from the weights of epoch {best.epoch}"
    )


def _divergence(outcome: Outcome, checkpoint: Path) -> str:
    saved = f"; {checkpoint} holds epoch {len(outcome.history)}" if outcome.history else ""
    return (
        f"diverged at step {outcome.diverged_at}: the loss is not finite at lr {outcome.diverged_lr:g}; "
        f"try a lower --lr, such as {(outcome.diverged_lr or 0) / 10:g}, or a --warmup of 0.1{saved}"
    )


def _where_it_stopped(done: int, resume: bool, checkpoint: Path) -> str:
    if done == 0 and not resume:
        return "interrupted in the first epoch: nothing is saved"
    upto = f"epochs 1 to {done} are" if done else "the epochs before are"
    return f"interrupted: {upto} saved in {checkpoint}; the same command with --resume goes on from there"
