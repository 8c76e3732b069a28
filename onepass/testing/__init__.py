"""The laws that every optimizer keeps, for this library's own and for anyone's.

In a test of your optimizer, put all of them to it, with the arguments that it is to be made with:

>>> import torch
>>> from onepass.testing import LAWS, LawBroken, check_optimizer
>>> class Sign(torch.optim.Optimizer):
...     def __init__(self, params, lr=0.01):
...         super().__init__(params, {"lr": lr})
...
...     @torch.no_grad()
...     def step(self, closure=None):
...         for group in self.param_groups:
...             for p in group["params"]:
...                 if p.grad is not None:
...                     p -= group["lr"] * p.grad.sgn()
>>> try:
...     check_optimizer(Sign, lr=0.1)
... except LawBroken as broken:
...     print(broken.laws)  # doctest: +NORMALIZE_WHITESPACE
('closures_run_first_with_gradients_enabled',)

The message says of each law what it demands and what was seen. A law that a class does not keep, and says so, is named
in ``skip``; or put the laws one by one, each a test that can be marked as failing:

>>> check_optimizer(Sign, lr=0.1, skip=("closures_run_first_with_gradients_enabled",))
>>> LAWS["gradients_are_left_alone"](Sign, lr=0.1)

    @pytest.mark.parametrize("law", LAWS)
    def test_sign(law):
        LAWS[law](Sign, lr=0.1)

The laws are put on torch's default device, which ``with torch.device("cuda"):`` changes, to small tensors. They draw no
random numbers but their own. What they ask for beyond the contract of ``torch.optim.Optimizer`` is little: that ``lr``,
if the class has one, is called so, and that steps are deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from onepass.optim.names import nearest
from onepass.testing import construction, states, stepping, tensors
from onepass.testing.law import LAWS, LawBroken

__all__ = ["LAWS", "LawBroken", "check_optimizer", "construction", "states", "stepping", "tensors"]


def check_optimizer(cls: type[torch.optim.Optimizer], /, *, skip: Sequence[str] = (), **arguments: Any) -> None:
    """Put every law to an optimizer class.

    Args:
        cls: a class of optimizers, called as ``cls(params, **arguments)``.
        skip: names of laws that the class does not keep.
        arguments: what to make it with, such as ``lr=0.1`` where the class has no default.

    Raises:
        LawBroken: the class breaks laws; the message has a paragraph for each, the exception's ``laws`` their names.
        ValueError: ``skip`` names a law that there is not.
    """
    for name in skip:
        if name not in LAWS:
            raise ValueError(f"skip={name!r} is no law: {nearest(name, LAWS)}")
    broken: list[LawBroken] = []
    for name, put in LAWS.items():
        if name not in skip:
            try:
                put(cls, **arguments)
            except LawBroken as error:
                broken.append(error)
    if broken:
        message = "\n".join(map(str, broken))
        raise LawBroken(message, tuple(name for error in broken for name in error.laws)) from broken[0]
