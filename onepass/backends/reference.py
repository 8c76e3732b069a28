"""The reference: eager torch, one tensor at a time. It is the definition that faster backends are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from onepass.compiler import Update, on_arrays
from onepass.lang import Expr, Level


def step(updates: Sequence[Update], *, precision: torch.dtype | None = None, differentiable: bool = False) -> None:
    """Take one step of all parameters: compute what each update's variant says, then write it.

    Args:
        updates: the parameters of the step, all of them: a reduction over the model runs over this list.
        precision: the type to compute in; by default float32 for parameters of 32 bits or fewer, float64 above.
        differentiable: let autograd follow the step. States are then replaced in ``update.states`` instead of written.
    """
    works = [_Work(update, precision, differentiable) for update in updates]
    _reduce_over_the_model(works)
    for work in works:
        work.finish(differentiable)


class _Work:
    """One update under way: the values of its symbols in the computing type, and all that is known so far."""

    def __init__(self, update: Update, precision: torch.dtype | None, differentiable: bool):
        self.update = update
        p = update.parameter
        self.dtype = precision or torch.promote_types(p.dtype, torch.float32)
        # Autograd keeps what it multiplies by; the parameter itself is about to be overwritten.
        values = {**update.values(), "p": p.clone() if differentiable else p}
        self.values: Mapping[str, Any] = {
            name: value.to(self.dtype) if isinstance(value, torch.Tensor) else value for name, value in values.items()
        }
        self.known: dict[Expr, Any] = {}

    def value(self, expression: Expr) -> Any:
        return on_arrays(expression, self.values, self.known, torch)

    def finish(self, differentiable: bool) -> None:
        variant, update = self.update.variant, self.update
        # Everything is computed before anything is written: the expressions share their inputs.
        parameter = self.value(variant.parameter)
        states = {key: self.value(new) for key, new in variant.states.items()}
        update.parameter.copy_(parameter)
        for key, value in states.items():
            if differentiable:
                update.states[key] = value.to(update.states[key].dtype)  # pyright: ignore[reportIndexIssue]
            else:
                update.states[key].copy_(value)


def _reduce_over_the_model(works: Sequence[_Work]) -> None:
    """Compute the reductions that span all parameters, innermost first, and tell every update the result.

    Variants of one optimizer differ in their rule's branches or in weight decay, but their transforms, and so their
    reductions over the model, come in the same order: the n-th of each are one.
    """
    rounds = [[r for r in work.update.variant.reductions if r.level == Level.MODEL] for work in works]
    if len({len(reductions) for reductions in rounds}) > 1:
        raise RuntimeError("parameters that share a reduction over the model must be updated by the same rule")
    for nodes in zip(*rounds, strict=True):
        parts = [(work.value(node.args[0]), work) for node, work in zip(nodes, works, strict=True)]
        device = parts[0][0].device
        total = torch.stack([value.sum(dtype=torch.float64).to(device) for value, _ in parts]).sum()
        count = sum(value.numel() for value, _ in parts)
        for node, (value, work) in zip(nodes, parts, strict=True):
            result = total / count if node.op == "mean" else total
            work.known[node] = result.to(value.device, value.dtype)
