"""The laws that every optimizer keeps, for this library's own and for anyone's.

In a test of your optimizer, put all of them to it, with the arguments that it is to be made with:

>>> import torch
>>> from onepass.testing import BEYOND_TORCH, LAWS, LawBroken, check_optimizer
>>> check_optimizer(torch.optim.Adam, lr=0.1, skip=BEYOND_TORCH)

Laws that a class does not keep, and says so, are named in ``skip``. `BEYOND_TORCH` names those that torch's own base
class breaks, and with it most classes that derive from it. The rest is worth knowing of:

>>> try:
...     check_optimizer(torch.optim.NAdam, skip=BEYOND_TORCH)
... except LawBroken as broken:
...     print(broken)  # doctest: +ELLIPSIS
NAdam breaks 'checkpoints_continue_bit_for_bit'. ... the state's ['mu_product'] came back with another value or type

Or put them one by one, each a test that can be marked as failing::

    @pytest.mark.parametrize("law", LAWS)
    def test_my_optimizer(law):
        LAWS[law](MyOptimizer, lr=0.1)

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

__all__ = ["BEYOND_TORCH", "LAWS", "LawBroken", "check_optimizer", "construction", "states", "stepping", "tensors"]


# Torch writes its defaults into the caller's dicts, steps a parameter twice that is listed twice, and loads states of
# the right type without copying them.
BEYOND_TORCH = ("the_callers_groups_are_left_alone", "a_parameter_listed_twice_steps_once", "loading_copies")


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
