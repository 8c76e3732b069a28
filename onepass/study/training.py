"""The loop that trains one model with one optimizer, and then perhaps with a second."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onepass.study import checkpoint as checkpoints
from onepass.study.batches import EVALUATION_BATCH, Batches, batch_size
from onepass.study.errors import StudyError
from onepass.study.optimizers import make_optimizer
from onepass.study.record import Epoch, Outcome, Settings, Then
from onepass.study.schedule import check_schedule, make_schedule
from onepass.study.task import Task
from onepass.study.tasks.user import blaming

__all__ = ["Epoch", "Outcome", "Settings", "Then", "check", "fit"]

OnStep = Callable[[int, int, float], None]
OnEpoch = Callable[[Epoch], None]


def fit(
    task: Task,
    settings: Settings,
    *,
    on_start: Callable[[], None] | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    evaluate_test: bool = True,
) -> Outcome:
    """Trains a fresh model of the task and says how it went.

    The seed alone decides the initial weights, the order of the examples and all else that is random, so that runs
    which differ only in the optimizer start from the same weights and see the same batches. (It sets the global random
    numbers of torch, Python and numpy. The last bits can change with the machine and with the number of threads.)
    The weights judged on the test data are those at the end.

    Args:
        task: what to learn.
        settings: how.
        on_start: called once everything that can be checked beforehand is known to be right.
        on_step: called after each step with the steps taken, the steps of the whole run and the batch's loss.
        on_epoch: called after each epoch, once its checkpoint is written.
        checkpoint: where to save the state of the run after each epoch.
        resume: go on from `checkpoint`, bit for bit as if the run had never stopped.
        evaluate_test: whether to look at the test data at all.

    Raises:
        StudyError: wrong settings, a broken user task, or a checkpoint that cannot be written or continued. A run that
            diverges is an `Outcome`, not an error.
    """
    check(settings)
    if checkpoint is not None:
        checkpoints.prepare(checkpoint, resume)
    run = _Run(task, settings)
    if resume:
        if checkpoint is None:
            raise StudyError("nothing to resume from; name the checkpoint")
        run.restore(checkpoint)
    if on_start is not None:
        on_start()
    # cuDNN would otherwise choose, by timing, among algorithms whose last bits differ.
    repeatable = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with repeatable, _threads(settings.threads):
        while run.epoch < settings.epochs:
            if run.is_stalled():
                run.switch()
            train_loss = run.train_epoch(on_step)
            if not math.isfinite(train_loss):
                return run.outcome(diverged_at=run.step + 1)
            if not math.isfinite(run.end_epoch(train_loss).validation_loss):
                return run.outcome(diverged_at=run.step)
            if checkpoint is not None:
                checkpoints.write(checkpoint, run.state())
            if on_epoch is not None:
                on_epoch(run.history[-1])
        return run.outcome(test=run.evaluate("test") if evaluate_test else None)


def check(settings: Settings) -> None:
    """`StudyError` for a setting out of its range, with the value and the range."""
    check_schedule(settings.schedule, settings.warmup)
    _device(settings.device)
    if settings.threads is not None and settings.threads < 1:
        raise StudyError(f"threads {settings.threads} is not a positive number")
    if settings.epochs < 1:
        raise StudyError(f"epochs {settings.epochs} is not a positive number")
    if not 0 <= settings.seed < 2**32:
        raise StudyError(f"seed {settings.seed} is not in 0 to 2**32 - 1")
    size = settings.batch_size
    if size is not None and size != "full" and (not isinstance(size, int) or size < 1):
        raise StudyError(f"batch size {size!r} is neither a positive integer nor 'full'")
    if settings.then is not None and settings.then.patience < 1:
        raise StudyError(f"patience {settings.then.patience} is not a positive number of epochs")


class _Run:
    """The state of a run between two epochs: all of it is in a checkpoint."""

    def __init__(self, task: Task, settings: Settings) -> None:
        self.task = task
        self.settings = settings
        self.device = _device(settings.device)
        self.epoch = 0
        self.step = 0
        self.seconds = 0.0
        self.optimizer_seconds = 0.0
        self.history: list[Epoch] = []
        self.best_loss = math.inf
        self.best_epoch = 0
        self.best_weights: dict[str, Any] | None = None
        self.shuffle = torch.Generator().manual_seed(settings.seed)
        checkpoints.seed_everything(settings.seed)
        self.batches = Batches(task, "train", batch_size(task, settings.batch_size), self.device, self.shuffle)
        self.held_out = {
            split: Batches(task, split, EVALUATION_BATCH, self.device, torch.Generator())
            for split in ("validation", "test")
        }
        self.model = self._make_model()
        if settings.then is not None:
            # Made once now, so that a mistake in it is found before the first optimizer has run for hours.
            self._start(settings.then, 0)
        self._start(settings, 0)
        self.last_lr = self.lr

    def _make_model(self) -> nn.Module:
        source = self.task.source
        with blaming(source, "model()"):
            model = self.task.model()
        if not isinstance(model, nn.Module):
            raise StudyError(f"{source or self.task.name}: model() made {type(model).__name__}, not a torch.nn.Module")
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise StudyError(f"{source or self.task.name}: the model has no parameters to train")
        return model.to(self.device)

    def _start(self, phase: Settings | Then, first_epoch: int) -> None:
        """A fresh optimizer and its schedule over the epochs from `first_epoch` on."""
        self.phase = phase
        self.first_epoch = first_epoch
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(
            self.task, phase.optimizer, parameters, phase.lr, phase.weight_decay, phase.options
        )
        steps = (self.settings.epochs - first_epoch) * len(self.batches)
        self.schedule = make_schedule(self.settings.schedule, self.optimizer, steps, self.settings.warmup)

    @property
    def total_steps(self) -> int:
        return self.settings.epochs * len(self.batches)

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def is_stalled(self) -> bool:
        """Whether the first optimizer has stopped improving and a second one waits."""
        then = self.settings.then
        return then is not None and self.phase is not then and self.epoch - self.best_epoch >= then.patience

    def switch(self) -> None:
        """Goes back to the best weights and on with the second optimizer."""
        assert self.settings.then is not None
        assert self.best_weights is not None
        self.model.load_state_dict(self.best_weights)
        self.best_weights = None
        self._start(self.settings.then, self.epoch)

    def train_epoch(self, on_step: OnStep | None) -> float:
        """One pass over the training data; the mean loss over its examples, or the first loss that is not finite."""
        self.model.train()
        total, examples = 0.0, 0
        started = time.perf_counter()
        try:
            for inputs, targets, count in self.batches:
                self.optimizer.zero_grad()
                loss = self._loss(inputs, targets)
                value = loss.item()
                if not math.isfinite(value):
                    return value
                with blaming(self.task.source, "the backward pass"):
                    loss.backward()
                self._take_step()
                total += value * count
                examples += count
                if on_step is not None:
                    paused = time.perf_counter()
                    on_step(self.step, self.total_steps, value)
                    started += time.perf_counter() - paused
        finally:
            self.seconds += time.perf_counter() - started
        return total / examples

    def _take_step(self) -> None:
        self.last_lr = self.lr
        self._synchronise()
        started = time.perf_counter()
        self.optimizer.step()
        self._synchronise()
        self.optimizer_seconds += time.perf_counter() - started
        self.step += 1
        self.schedule.step()

    def _synchronise(self) -> None:
        # A GPU works on after a call returns: without this, its time would be put down to whatever waits for it next.
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def _loss(self, inputs: Any, targets: Any) -> Tensor:
        source = self.task.source
        with blaming(source, "the model"):
            outputs = self.model(inputs)
        with blaming(source, "the loss"):
            loss = self.task.loss(outputs, targets)
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise StudyError(f"{source or self.task.name}: the loss returned {what}, not a 0-dim tensor; take its mean")
        return loss

    def end_epoch(self, train_loss: float) -> Epoch:
        """Judges the weights on the validation data and enters the epoch into the history."""
        self.epoch += 1
        validation_loss, validation_metric = self.evaluate("validation")
        record = Epoch(
            epoch=self.epoch,
            step=self.step,
            seconds=self.seconds,
            optimizer_seconds=self.optimizer_seconds,
            train_loss=train_loss,
            validation_loss=validation_loss,
            validation_metric=validation_metric,
            lr=self.last_lr,
            optimizer=self.phase.optimizer,
        )
        self.history.append(record)
        if self.settings.then is not None and self.phase is not self.settings.then and validation_loss < self.best_loss:
            self.best_loss, self.best_epoch = validation_loss, self.epoch
            self.best_weights = copy.deepcopy(self.model.state_dict())
        return record

    @torch.no_grad()
    def evaluate(self, split: str) -> tuple[float, float]:
        """The mean loss and metric over the examples of a split, the model in evaluation mode."""
        self.model.eval()
        batches = self.held_out[split]
        batches.generator.manual_seed(self.settings.seed)
        losses, metrics, examples = 0.0, 0.0, 0
        for inputs, targets, count in batches:
            with blaming(self.task.source, f"the model on {split} data"):
                outputs = self.model(inputs)
            with blaming(self.task.source, f"the loss or metric on {split} data"):
                losses += float(self.task.loss(outputs, targets)) * count
                metrics += float(self.task.metric.compute(outputs, targets)) * count
            examples += count
        return losses / examples, metrics / examples

    def outcome(self, test: tuple[float, float] | None = None, diverged_at: int | None = None) -> Outcome:
        return Outcome(
            history=tuple(self.history),
            test_loss=test[0] if test else None,
            test_metric=test[1] if test else None,
            diverged=diverged_at is not None,
            diverged_at=diverged_at,
            diverged_lr=self.lr if diverged_at is not None else None,
            steps=self.step,
            seconds=self.seconds,
            optimizer_seconds=self.optimizer_seconds,
        )

    def state(self) -> dict[str, Any]:
        return {
            "task": self.task.name,
            "settings": self.settings.to_json(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": checkpoints.random_state(self.device),
            "shuffle": self.shuffle.get_state(),
            "history": [asdict(epoch) for epoch in self.history],
            "first_epoch": self.first_epoch,
            "in_second": self.phase is self.settings.then,
            "best": {"loss": self.best_loss, "epoch": self.best_epoch, "weights": self.best_weights},
        }

    def restore(self, path: Path) -> None:
        """Takes up the state that is in a checkpoint; `StudyError` if it is of another run."""
        state = checkpoints.read(path)
        checkpoints.check_same_run(path, state, self.task.name, self.settings)
        if state["in_second"]:
            assert self.settings.then is not None
            self._start(self.settings.then, state["first_epoch"])
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise StudyError(f"{path} does not fit the task's model, which must have changed since: {error}") from error
        self.schedule.load_state_dict(state["schedule"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        last = self.history[-1]
        self.epoch, self.step = last.epoch, last.step
        self.seconds, self.optimizer_seconds, self.last_lr = last.seconds, last.optimizer_seconds, last.lr
        best = state["best"]
        self.best_loss, self.best_epoch, self.best_weights = best["loss"], best["epoch"], best["weights"]
        self.shuffle.set_state(state["shuffle"])
        checkpoints.restore_random_state(state["random"], self.device)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        if device.type != "meta":
            torch.zeros(1, device=device)
            return device
    except (RuntimeError, AssertionError, NotImplementedError):
        pass
    usable = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    raise StudyError(f"device {name!r} cannot be used here; usable: {', '.join(usable)}")
