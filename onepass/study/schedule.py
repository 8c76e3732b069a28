"""Learning-rate schedules: torch's own classes, laid over the steps of a run."""

from __future__ import annotations

import warnings

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from onepass.optim.names import nearest
from onepass.study.errors import StudyError

SCHEDULES = ("constant", "step", "cosine", "onecycle")
ONECYCLE_WARMUP = 0.3


def check_schedule(name: str, warmup: float | None) -> None:
    """`StudyError` unless `name` is a schedule and `warmup` None or in [0, 1)."""
    if name not in SCHEDULES:
        raise StudyError(f"unknown schedule {name!r}; {nearest(name, SCHEDULES)}")
    if warmup is not None and not 0 <= warmup < 1:
        raise StudyError(f"warmup {warmup} is not a share of the run; give a number from 0 up to, not including, 1")


def make_schedule(name: str, optimizer: Optimizer, steps: int, warmup: float | None = None) -> LRScheduler:
    """A scheduler to be stepped after each of `steps` optimizer steps.

    The optimizer's learning rate is the highest that each schedule reaches:

    - "constant": that rate throughout;
    - "step": a tenth of it from half of the steps on, a hundredth from three quarters on;
    - "cosine": down to 0 along half a cosine;
    - "onecycle": super-convergence (Smith and Topin, arXiv:1708.07120): from a 25th of it up, then down to a 250,000th,
      each along half a cosine. Momentum, or beta1, goes the other way: 0.95, 0.85, 0.95. It is cycled where the
      optimizer has `betas` or uses `momentum`; plain SGD is given momentum, which is the recipe.

    `warmup` is the share of the steps, in [0, 1), over which the rate first rises linearly to its full value, the
    schedule proper having the others; for "onecycle" it is the share of the rise (None: 0.3).
    """
    check_schedule(name, warmup)
    if name == "onecycle":
        return _onecycle(optimizer, steps, ONECYCLE_WARMUP if warmup is None else warmup)
    rise = min(round((warmup or 0.0) * steps), steps - 1)
    if rise == 0:
        return _plain(name, optimizer, steps)
    # torch before 2.7 steps the second schedule in a form that it has itself deprecated.
    warnings.filterwarnings("ignore", r"The epoch parameter in `scheduler\.step", UserWarning)
    rising = LinearLR(optimizer, start_factor=1 / (rise + 1), total_iters=rise)
    return SequentialLR(optimizer, [rising, _plain(name, optimizer, steps - rise)], milestones=[rise])


def _plain(name: str, optimizer: Optimizer, steps: int) -> LRScheduler:
    if name == "step":
        return MultiStepLR(optimizer, milestones=[steps // 2, steps * 3 // 4], gamma=0.1)
    if name == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    return ConstantLR(optimizer, factor=1.0, total_iters=0)


def _onecycle(optimizer: Optimizer, steps: int, rise: float) -> LRScheduler:
    if steps < 2:
        raise StudyError(f"the schedule onecycle needs at least 2 steps, not {steps}; train for more epochs")
    if rise * steps == 1:
        # torch divides by the length of the rise less one step. No rise at all gives the same rates but for the first.
        rise = 0.0
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=rise,
        cycle_momentum=_has_momentum(optimizer),
    )


def _has_momentum(optimizer: Optimizer) -> bool:
    if "betas" in optimizer.defaults:
        return True
    plain_sgd = type(optimizer).__name__ == "SGD"
    return bool(optimizer.defaults.get("momentum")) or plain_sgd
