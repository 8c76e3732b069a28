"""Hold the compiled kernels against the reference in float64, from the same stored state at every step."""

from __future__ import annotations

import math
import os

import bounds
import torch
from bounds import Arithmetic, Bounded

from onepass.compiler import on_arrays
from onepass.lang import Level

# The backend whose kernels are held: as the environment says, or the CPU's.
FAST = os.environ.get("ONEPASS_BACKEND", "cpu")
# A matrix, a vector, a single number.
SHAPES = ((5, 3), (17,), ())
# The interpreter takes a thousand times as long: up to the first step that each of the comparisons below is about.
STEPS = 50 if FAST == "cpu" else 7
# Where a step differs from the one before: fresh states, RAdam's first adaptive step (6), Lookahead's synchronisations
# (5, 50, ...; Ranger's 6, 12, ...) and the steps after them. The bounds cost more than the kernels; the steps between
# are taken by the kernels alone.
COMPARED = frozenset((1, 2, 3, 4, 5, 6, 7, 12, 13, 29, 50))
# A bound of so large a part of what it bounds would hide a fault.
VACUOUS = {torch.float32: 1e-4, torch.float64: 1e-10}


def parameters(dtype, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def gradient_like(p, generator, t):
    """Normal numbers over several magnitudes from step to step, with zeros among them."""
    g = torch.randn(p.shape, generator=generator) * (0.03, 0.3, 1.0, 3.0)[t % 4]
    return (g * (torch.rand(p.shape, generator=generator) > 0.1)).to(p.dtype)


def ulp(x, dtype):
    """The spacing of ``dtype`` at the values ``x``, float64."""
    info = torch.finfo(dtype)
    _, exponent = torch.frexp(x.abs().clamp(min=info.tiny))
    return torch.ldexp(torch.full_like(x, info.eps), exponent - 1)


def hold(make, dtype, *, shapes=SHAPES, steps=STEPS, seed=0, change=None, gradient=gradient_like, params=None):
    """Step ``make(params, backend)`` with the kernels and with the reference, side by side.

    Before each step that is compared the reference gets what the kernels have stored, exactly, as float64. After it,
    what the kernels stored must be the exact result rounded to the storage type: within half an ulp of it and the
    error that arithmetic in float32 (float64 for float64) may make on the way (see `bounds`).

    Args:
        make: returns an optimizer for parameters and a backend.
        dtype: of the parameters.
        change: called with each optimizer before step t, as ``change(optimizer, t)``.
        gradient: returns the gradient of a parameter at step t, or None for none.

    Returns:
        The kernels' optimizer.

    Raises:
        AssertionError: they differ by more, naming the step, the state and the element.
    """
    ours = parameters(dtype, shapes, seed) if params is None else params
    theirs = [torch.nn.Parameter(p.detach().to(torch.float64, copy=True)) for p in ours]
    fast, exact = make(ours, FAST), make(theirs, "reference")
    fast.init_state()
    exact.init_state()
    generator = torch.Generator().manual_seed(seed + 1)
    for t in range(1, steps + 1):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = gradient(p, generator, t)
            q.grad = None if p.grad is None else p.grad.double()
        for optimizer in (fast, exact):
            if change:
                change(optimizer, t)
        if t in COMPARED:
            step_and_compare(fast, exact, ours, theirs, f"step {t}")
        else:
            fast.step()
    return fast


def step_and_compare(fast, exact, ours, theirs, where):
    """One step of both from the state of the first; the assertion of `hold`."""
    with torch.no_grad():
        for p, q in zip(ours, theirs, strict=True):
            q.copy_(p)
            for key, value in fast.state[p].items():
                exact.state[q][key] = value.to(torch.float32 if key == "step" else torch.float64, copy=True)
    before = [{"p": q.detach().clone(), **{k: v.clone() for k, v in exact.state[q].items()}} for q in theirs]
    arithmetic = Arithmetic(torch.promote_types(ours[0].dtype, torch.float32))
    allowed = error_bounds(exact, arithmetic)
    versions = [p._version for p in ours]
    fast.step()
    exact.step()
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        assert (p._version > versions[i]) == (p.grad is not None), f"{where}: autograd was not told"
        compare(p, q.detach(), allowed[q]["p"], before[i]["p"], f"{where}, parameter {i}")
        assert fast.state[p].keys() == exact.state[q].keys()
        for key, value in fast.state[p].items():
            label = f"{where}, state {key} of parameter {i}"
            if value.ndim == 0 and key not in allowed[q]:
                # A device's own power function need not round as the host's does.
                rtol = 1e-14 if fast._reads_signals() else 0.0
                assert math.isclose(value.item(), exact.state[q][key].item(), rel_tol=rtol), label
            else:
                compare(value, exact.state[q][key], allowed[q][key], before[i][key], label)


def compare(stored, expected, error, before, label):
    """Assert that ``stored`` is ``expected``, rounded, give or take ``error``."""
    dtype = stored.dtype
    stored = stored.detach().double()
    both = (stored == expected) | (stored.isnan() & expected.isnan())
    # The reference's own roundings: in float64 as large as the kernels', else negligible.
    error = error * (2.0 if dtype == torch.float64 else 1 + 2**-20)
    reach = expected.abs() + error
    room = error + ulp(reach, dtype) / 2
    room = torch.where(reach > torch.finfo(dtype).max, torch.inf, room)
    gap = (stored - expected).abs()
    wrong = ~(both | (gap <= room))
    if wrong.any():
        worst = torch.where(wrong, (gap / room).nan_to_num(torch.inf), 0.0).argmax()
        values = [x.expand(stored.shape).flatten()[worst].item() for x in (stored, expected, error, room)]
        raise AssertionError(
            f"{label}: {int(wrong.sum())} of {wrong.numel()} elements are wrong; element {int(worst)} is "
            f"{values[0]!r}, not {values[1]!r}: off by {abs(values[0] - values[1]):.3g}, where arithmetic may cost "
            f"{values[2]:.3g} and storage makes it {values[3]:.3g}"
        )
    share = VACUOUS[torch.promote_types(dtype, torch.float32)]
    size = torch.maximum(expected.abs(), before.abs()).clamp(min=torch.finfo(dtype).tiny)
    vacuous = (error > share * size).double().mean().item() if error.numel() else 0.0
    assert vacuous <= 0.5, f"{label}: the bound of {vacuous:.0%} of the elements is too wide to say anything"


def error_bounds(optimizer, arithmetic):
    """For each parameter that has a gradient, the bounds of all that the next step will store; 0 where nothing is."""
    cases = []
    result = {}
    for group in optimizer.param_groups:
        work = optimizer._work(group)
        for p in work.params:
            state = optimizer.state[p]
            zero = torch.zeros(p.shape, dtype=torch.float64)
            result[p] = {"p": zero, **dict.fromkeys(work.program.states, zero)}
            if p.grad is None:
                continue
            scalars = tuple(float(state[key]) for key in work.program.scalars)
            situation = work.program.situation(work.values, float(state["step"]) + 1, p.ndim, scalars)
            values = {"p": p.detach(), "g": p.grad, **{f"state.{key}": state[key] for key in work.program.states}}
            values = {name: Bounded.exact(value, arithmetic) for name, value in values.items()}
            values.update((f"row[{i}]", Bounded.number(x, arithmetic)) for i, x in enumerate(situation.row))
            cases.append((p, situation.variant, values, {}))
    _reduce_over_the_model(cases)
    for p, variant, values, known in cases:
        for name, expression in (("p", variant.parameter), *variant.states.items()):
            outcome = on_arrays(expression, values, known, bounds)
            # A number alone is stored as it is.
            error = outcome.error if isinstance(outcome, Bounded) else torch.zeros(())
            result[p][name] = error.double().expand(p.shape)
    return result


def _reduce_over_the_model(cases):
    rounds = [[node for node in variant.reductions if node.level == Level.MODEL] for _, variant, _, _ in cases]
    for nodes in zip(*rounds, strict=True):
        parts = [on_arrays(node.args[0], case[2], case[3], bounds) for node, case in zip(nodes, cases, strict=True)]
        count = 0
        total = 0.0
        for part in parts:
            total = bounds.sum(part) + total
            count += part.value.numel()
        for node, case in zip(nodes, cases, strict=True):
            case[3][node] = total / count if node.op == "mean" else total
