"""Schedules: a hyperparameter's value at each step, for any hyperparameter of any optimizer.

A schedule is given where the number would stand, and every hyperparameter has its own:

>>> import torch, onepass
>>> from onepass.schedules import constant, cosine, linear
>>> opt = onepass.AdamW(
...     torch.nn.Linear(3, 1).parameters(),
...     lr=linear(1e-5, 1e-3, steps=100).then(cosine(1e-3, 0.0, steps=900)),
...     weight_decay=linear(0.04, 0.4, steps=1000),
...     betas=(0.9, constant(0.99, steps=500).then(constant(0.999))),
... )
>>> opt.param_groups[0]["lr"]
1e-05

Steps are counted 1, 2, ... from the start of the schedule. **The convention is torch's**: a piece from ``start`` to
``end`` over ``steps`` steps has ``start`` at its first step and comes to ``end`` at the step *after* its last, where
what follows takes over; so pieces join without a value said twice, and a run of exactly ``steps`` steps spends none
of them at a final rate of zero. Step t is torch's ``last_epoch`` t - 1. `one_cycle` alone reaches its end at its last
step, as torch's does. A schedule that is over keeps its end.

A schedule made of what is no number, or out of range, raises `TypeError` or `ValueError`; the message names the value.
Schedules are values: immutable, comparable, and written to checkpoints as plain data (`to_state`, `from_state`).
"""

from onepass.schedules.kinds import constant, cosine, linear, one_cycle, step, warmup_stable_decay
from onepass.schedules.schedule import Schedule, from_state

__all__ = ["Schedule", "constant", "cosine", "from_state", "linear", "one_cycle", "step", "warmup_stable_decay"]
