"""The reference: eager torch, one tensor at a time. It is the definition that faster backends are held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from onepass.backends import mesh
from onepass.compiler import GUARD, Program, Situation, Work, on_arrays, walk
from onepass.lang import Expr, Level


def step(
    works: Sequence[Work], *, precision: torch.dtype | None = None, differentiable: bool = False
) -> dict[str, float]:
    """Take one step of all parameters that have a gradient: compute everything, then write it.

    Args:
        works: the parameter groups, all of them: a reduction over the model runs over them.
        precision: the type to compute in; by default float32 for parameters of 32 bits or fewer, float64 above.
        differentiable: let autograd follow the step; states are then replaced instead of written.

    Returns:
        What transforms report of the step; nothing if no parameter has a gradient.
    """
    updates = [update for work in works for update in _updates(work, precision, differentiable)]
    _reduce_over_the_model(updates)
    reports = {name: float(updates[0].value(r)) for name, r in updates[0].variant.reports.items()} if updates else {}
    if not reports.get(GUARD, 0) > 0:
        for update in updates:
            update.finish(differentiable)
    return reports


def real(x: torch.Tensor) -> torch.Tensor:
    """Complex numbers as pairs of reals, on which the rules work, as torch's do."""
    return torch.view_as_real(x) if x.is_complex() else x


def _updates(work: Work, precision: torch.dtype | None, differentiable: bool) -> list[_Update]:
    situations: dict[tuple[float, ...], Situation] = {}
    updates: list[_Update] = []
    for p in work.params:
        if p.grad is None:
            continue
        state = work.prepare(p, work.program, work.values)
        t = float(state["step"]) + 1
        scalars = tuple(float(state[key]) for key in work.program.scalars)
        case = (t, p.ndim, *scalars)
        if case not in situations:
            situations[case] = work.program.situation(work.values, t, p.ndim, scalars)
        updates.append(_Update(work.program, situations[case], p, state, t, precision, differentiable))
    return updates


class _Update:
    """One parameter's update under way: its values in the computing type, and all that is known so far."""

    def __init__(
        self,
        program: Program,
        situation: Situation,
        p: torch.Tensor,
        state: dict[str, Any],
        t: float,
        precision: torch.dtype | None,
        differentiable: bool,
    ):
        self.program, self.situation, self.p, self.state, self.t = program, situation, p, state, t
        self.variant = situation.variant
        # Which rows a sparse gradient has; the others are left alone, as torch.optim.SparseAdam does.
        self.rows: torch.Tensor | None = None
        if self.variant.reductions and p.is_complex():
            raise RuntimeError(f"{program.name}: reductions over complex parameters are not offered")
        dtype = precision or torch.promote_types(real(mesh.local(p)).dtype, torch.float32)
        # Autograd keeps what it multiplies by; the parameter itself is about to be overwritten.
        tensors = {"p": p.clone() if differentiable else p}
        tensors.update((f"state.{key}", state[key]) for key in program.states)
        gradient = mesh.local(p.grad)
        if gradient.is_sparse:
            gradient = gradient.coalesce()
            self.rows, gradient = gradient.indices()[0], gradient.values()
        self.values: dict[str, Any] = {name: self.part(tensor).to(dtype) for name, tensor in tensors.items()}
        self.values["g"] = real(gradient).to(dtype)
        self.values.update((f"row[{i}]", value) for i, value in enumerate(situation.row))
        self.known: dict[Expr, Any] = {}

    def part(self, x: torch.Tensor) -> torch.Tensor:
        """What this process and this gradient touch of a tensor."""
        whole = real(mesh.local(x))
        return whole if self.rows is None else whole.index_select(0, self.rows)

    def value(self, expression: Expr) -> Any:
        over = mesh.groups(self.p)
        if over:
            self.add_up_tensors(expression, over)
        return on_arrays(expression, self.values, self.known, torch)

    def add_up_tensors(self, expression: Expr, over: tuple[Any, ...]) -> None:
        """Compute the reductions over a whole tensor, of which this process holds a part."""
        for node in walk([expression], stop=frozenset(self.known)):
            if node.level == Level.TENSOR and node.op in ("sum", "mean") and node not in self.known:
                inside = on_arrays(node.args[0], self.values, self.known, torch)
                total = inside.sum(dtype=torch.float64)
                mesh.add_up(total, over)
                total = total / self.p.numel() if node.op == "mean" else total
                self.known[node] = total.to(inside.dtype)

    def finish(self, differentiable: bool) -> None:
        # Everything is computed before anything is written: the expressions share their inputs.
        parameter = self.value(self.variant.parameter)
        states = {key: self.value(new) for key, new in self.variant.states.items()}
        self.write(self.p, parameter)
        for key, value in states.items():
            old = self.state[key]
            if differentiable:
                self.state[key] = torch.view_as_complex(value) if old.is_complex() else value.to(old.dtype)
            else:
                self.write(old, value)
        self._settle()

    def write(self, target: torch.Tensor, value: Any) -> None:
        whole = real(mesh.local(target))
        if self.rows is None:
            whole.copy_(value)
        else:
            whole.index_copy_(0, self.rows, value.to(whole.dtype))

    def _settle(self) -> None:
        self.state["step"].fill_(self.t)
        for key, value in zip(self.program.scalars, self.situation.after, strict=True):
            self.state[key].fill_(value)


def _reduce_over_the_model(updates: Sequence[_Update]) -> None:
    """Compute the reductions that span all parameters, innermost first, and tell every update the result.

    Variants of one optimizer differ in their rule's branches or in weight decay, but their transforms, and so their
    reductions over the model, come in the same order: the n-th of each are one.
    """
    rounds = [[r for r in update.variant.reductions if r.level == Level.MODEL] for update in updates]
    if len({len(reductions) for reductions in rounds}) > 1:
        raise RuntimeError("parameters that share a reduction over the model must be updated by the same rule")
    for nodes in zip(*rounds, strict=True):
        parts = [(update.value(node.args[0]), update) for node, update in zip(nodes, updates, strict=True)]
        device = parts[0][0].device
        sums: list[torch.Tensor] = []
        for value, update in parts:
            sums.append(value.sum(dtype=torch.float64))
            mesh.add_up(sums[-1], mesh.groups(update.p))
        total = torch.stack([part.to(device) for part in sums]).sum()
        count = sum(update.p.numel() for _, update in parts)
        for node, (value, update) in zip(nodes, parts, strict=True):
            result = total / count if node.op == "mean" else total
            update.known[node] = result.to(value.device, value.dtype)
