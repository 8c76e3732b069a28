"""Optimizers by name, with a task's own hyperparameters filled in."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

import onepass
from onepass.study.errors import StudyError
from onepass.study.record import Options
from onepass.study.task import Task

NOT_OPTIONS = {"lr": "lr", "weight_decay": "weight-decay"}


def make_optimizer(
    task: Task,
    name: str,
    parameters: Iterable[Tensor],
    lr: float | None = None,
    weight_decay: float | None = None,
    options: Options = (),
) -> Optimizer:
    """The optimizer `name` over `parameters`.

    What is None comes from the task if the optimizer is the task's default one, else from the optimizer's class; the
    task's options for this optimizer stand where `options` does not say otherwise. `StudyError` if the name or a value
    is wrong.
    """
    if name.lower() == task.optimizer.lower():
        lr = task.lr if lr is None else lr
        weight_decay = task.weight_decay if weight_decay is None else weight_decay
    chosen = dict(complete_options(task, name, options))
    try:
        return onepass.create(name, parameters, lr=lr, weight_decay=weight_decay, **chosen)
    except onepass.UnknownName as error:
        raise StudyError(str(error)) from error
    except (ValueError, TypeError) as error:
        raise StudyError(f"optimizer {name}: {error}") from error


def complete_options(task: Task, name: str, options: Options) -> Options:
    """What the task prescribes for the optimizer `name`, and `options` over it, in name order."""
    prescribed = {each.lower(): values for each, values in task.options.items()}.get(name.lower(), {})
    return tuple(sorted({**prescribed, **dict(options)}.items()))


def read_options(pairs: Iterable[str], flag: str = "--set") -> Options:
    """Pairs in name order from texts such as `betas=(0.9, 0.99)`; a value is a Python literal."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not name.isidentifier():
            raise StudyError(f"{flag} {pair!r} is not NAME=VALUE; write, for example, {flag} eps=1e-6")
        if name in NOT_OPTIONS:
            raise StudyError(
                f"{flag} {pair!r}: {name} has an option of its own, {flag.removesuffix('set')}{NOT_OPTIONS[name]}"
            )
        if name in options:
            raise StudyError(f"{flag} {name} is given twice; give it once")
        try:
            options[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise StudyError(
                f"{flag} {pair!r}: {text!r} is not a Python value such as 0.9, True or (0.9, 0.99)"
            ) from error
    return tuple(sorted(options.items()))
