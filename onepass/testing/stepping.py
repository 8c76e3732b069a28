"""Laws of the step: closures, hooks, schedulers, hyperparameters that change, and what a step may touch."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from onepass.testing.law import (
    Subject,
    changed_keys,
    equal,
    give_gradients,
    law,
    parameters,
    refusal,
    require,
    require_close,
    require_equal,
    state_of,
    values,
    walk,
)


@law
def a_step_moves_what_has_a_gradient(subject: Subject) -> None:
    """The first step changes every parameter that has a gradient, in place: it stays the leaf that it was."""
    params = parameters()
    before, addresses = values(params), [p.data_ptr() for p in params]
    opt = subject.make(params)
    walk(opt, params, [1])
    for p, old, address in zip(params, before, addresses, strict=True):
        require(not torch.equal(p, old), f"a parameter of shape {tuple(p.shape)} did not move")
        require(p.data_ptr() == address, f"a parameter of shape {tuple(p.shape)} lies elsewhere in memory now")
        if not subject.defaults.get("differentiable"):
            require(p.is_leaf and p.requires_grad, f"a parameter of shape {tuple(p.shape)} is no trainable leaf now")


@law
def autograd_notices_a_step(subject: Subject) -> None:
    """Backward through a graph that remembers a parameter from before a step is an error, and no wrong gradient."""
    if subject.defaults.get("differentiable"):
        return
    (p,) = parameters((5,))
    loss = (p * p).sum()
    walk(subject.make([p]), [p], [1])
    require(refusal(loss.backward, RuntimeError) is not None, "backward used numbers that the step had overwritten")


@law
def gradients_are_left_alone(subject: Subject) -> None:
    """A step does not write to gradients, nor replace them: values, versions and identities stay."""
    for options in ({}, _with_decay(subject)):
        params = parameters()
        opt = subject.make(params, **options)
        for seed in (1, 2):
            give_gradients(params, seed)
            kept = [(p.grad, p.grad._version, p.grad.clone()) for p in params if p.grad is not None]
            opt.step()
            for p, (gradient, version, value) in zip(params, kept, strict=True):
                require(p.grad is gradient, "a gradient was replaced")
                require(torch.equal(gradient, value), "a gradient has another value after the step")
                require(gradient._version == version, "a gradient was written to")


def _with_decay(subject: Subject) -> dict[str, Any]:
    own = "weight_decay" in subject.defaults and "weight_decay" not in subject.arguments
    return {"weight_decay": 0.1} if own else {}


@law
def parameters_without_gradients_rest(subject: Subject) -> None:
    """A parameter whose gradient is None keeps its value and its state, and does not age."""
    early, late = parameters((4, 3), (5,))
    alone = parameters((4, 3), (5,))[1]
    opt, fresh = (subject.make(params, **_with_decay(subject)) for params in ([early, late], [alone]))
    before = values([late])
    walk(opt, [early], [1, 2, 3])
    require_equal([late], before, "a parameter without a gradient should not move")
    opt.zero_grad()
    kept, state = values([early]), state_of(opt, early)
    walk(opt, [late], [4, 5])
    walk(fresh, [alone], [4, 5])
    require_equal([early], kept, "a parameter that has lost its gradient should not move")
    changed = changed_keys(state, state_of(opt, early))
    require(not changed, f"a step changed {changed} in the state of a parameter without a gradient")
    require_equal([late], [alone], "after idle steps a parameter should step as if they had not been")
    opt.zero_grad()
    kept = values([early, late])
    opt.step()
    require_equal([early, late], kept, "without any gradient nothing should move")


@law
def steps_are_counted_per_parameter(subject: Subject) -> None:
    """Where the state has a ``step``, it counts the steps that this parameter took part in."""
    often, once = parameters((4, 3), (5,))
    opt = subject.make([often, once])
    walk(opt, [often, once], [1])
    opt.zero_grad()
    walk(opt, [often], [2, 3])
    counts = [float(opt.state[p]["step"]) for p in (often, once) if "step" in opt.state[p]]
    require(counts in ([], [3, 1]), f"after 3 steps and 1 step the counts are {counts}")


@law
def closures_run_first_with_gradients_enabled(subject: Subject) -> None:
    """A closure runs before the update, with gradients enabled even under no_grad; step returns its loss, else None."""
    p, q = (parameters((5,))[0] for _ in range(2))
    opt, other = subject.make([p]), subject.make([q])
    enabled: list[bool] = []

    def closure() -> Any:
        enabled.append(torch.is_grad_enabled())
        opt.zero_grad()
        with torch.enable_grad():
            loss = (p**2).sum()
        loss.backward()
        return loss

    expected = (q**2).sum()
    expected.backward()
    require(other.step() is None, "without a closure step did not return None")
    with torch.no_grad():
        loss = opt.step(closure)
        require(not torch.is_grad_enabled(), "step left gradients enabled under no_grad")
    require(bool(enabled), "the closure was not called")
    require(all(enabled), "gradients were disabled in the closure")
    require(loss is not None and float(loss) == float(expected), f"step returned {loss!r}, not the closure's loss")
    require_equal([p], [q], "the gradients of the closure should count for this very step")


@law
def hooks_run_around_the_step(subject: Subject) -> None:
    """Pre hooks, global and own, run before the parameters move; post hooks, own and global, after."""
    params = parameters()
    opt = subject.make(params)
    give_gradients(params, 1)
    before, seen = values(params), list[tuple[str, bool]]()

    def hook(name: str) -> Any:
        def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            if optimizer is opt:
                seen.append((name, equal(params, before)))

        return note

    handles = [
        register_optimizer_step_pre_hook(hook("global pre")),
        register_optimizer_step_post_hook(hook("global post")),
        opt.register_step_pre_hook(hook("pre")),
        opt.register_step_post_hook(hook("post")),
    ]
    try:
        opt.step()
    finally:
        for handle in handles:
            handle.remove()
    expected = [("global pre", True), ("pre", True), ("post", False), ("global post", False)]
    require(seen == expected, f"(hook, parameters as before) came as {seen}, not as {expected}")


@law
def steps_show_in_profiles(subject: Subject) -> None:
    """A profile names the step once, ``Optimizer.step#Name.step``."""
    params = parameters((5,))
    opt = subject.make(params)
    give_gradients(params, 1)
    profile = torch.autograd.profiler.profile()
    with profile:
        opt.step()
    name = f"Optimizer.step#{subject.cls.__name__}.step"
    events = [event.name for event in profile.function_events or () if event.name.startswith("Optimizer.step")]
    require(events == [name], f"the profile names {events}, not {name}")


@law
def schedulers_drive_the_step(subject: Subject) -> None:
    """Torch's schedulers can patch ``step``, a plain bound method, and what they put in the groups takes effect."""
    (p,) = parameters((5,))
    opt = subject.make([p])
    require(
        getattr(opt.step, "__self__", None) is opt and hasattr(opt.step, "__func__"), "step is no plain bound method"
    )
    if not subject.has_lr:
        return
    # From zero upwards: once they have moved, lookahead and the like move parameters without any lr.
    scheduler = LambdaLR(opt, lambda epoch: float(epoch > 0))
    before = values([p])
    walk(opt, [p], [1])
    require_equal([p], before, "while the scheduler holds lr at 0 nothing should move")
    scheduler.step()
    walk(opt, [p], [2])
    require(not equal([p], before), "when the scheduler had raised lr from 0 nothing moved")
    if {"momentum", "betas"} & opt.param_groups[0].keys():
        cyclic = OneCycleLR(subject.make([p]), max_lr=0.1, total_steps=4, base_momentum=0.5, max_momentum=0.6)
        group = cyclic.optimizer.param_groups[0]
        kept_momentum = group["betas"][0] if "betas" in group else group["momentum"]
        require(kept_momentum == 0.6, f"OneCycleLR asked for a momentum of 0.6 and the group holds {kept_momentum}")


@law
def hyperparameters_can_change_between_steps(subject: Subject) -> None:
    """A hyperparameter changed in its group counts from the next step, as if the optimizer had been made with it."""
    for name, value in _other_values(subject).items():
        params, others = parameters(), parameters()
        changed, made = subject.make(params), subject.make(others, **{name: value})
        changed.param_groups[0][name] = value
        walk(changed, params, [1, 2, 3])
        walk(made, others, [1, 2, 3])
        require_equal(params, others, f"{name}={value} set in the group should do as in the constructor")
    if subject.has_lr:
        params = parameters((5,))
        opt = subject.make(params)
        before, rate = values(params), opt.param_groups[0]["lr"]
        opt.param_groups[0]["lr"] = 0.0
        walk(opt, params, [1])
        require_equal(params, before, "while lr is 0 nothing should move")
        opt.param_groups[0]["lr"] = rate
        walk(opt, params, [2])
        require(not equal(params, before), "when lr had been raised from 0, after a step, nothing moved")


def _other_values(subject: Subject) -> dict[str, Any]:
    """Other values for those of torch's common hyperparameters that the class has and the caller left alone."""
    found: dict[str, Any] = {}
    if subject.has_lr:
        found["lr"] = 2.0 * float(subject.defaults["lr"])
    if "betas" in subject.defaults:
        found["betas"] = tuple(0.75 * float(beta) for beta in subject.defaults["betas"])
    for name in ("weight_decay", "momentum"):
        if subject.defaults.get(name) is not None:
            found[name] = 0.75 * float(subject.defaults[name]) or 0.25
    return {name: value for name, value in found.items() if name == "lr" or name not in subject.arguments}


@law
def a_zero_lr_changes_nothing(subject: Subject) -> None:
    """With lr = 0 parameters keep every bit, whatever the gradients, zeros among them, and the weight decay."""
    if not subject.has_lr:
        return
    params = parameters()
    opt = subject.make(params, **_with_decay(subject))
    opt.param_groups[0]["lr"] = 0.0
    before = values(params)
    walk(opt, params, range(1, 8))
    require_equal(params, before, "with lr = 0 nothing should move")
    for p in params:
        p.grad = torch.zeros_like(p)
    opt.step()
    require_equal(params, before, "with lr = 0 and gradients of zero nothing should move")


@law
def a_tensor_lr_stays_a_tensor(subject: Subject) -> None:
    """Where the class takes a tensor as lr, that tensor is what each step reads, and none writes to."""
    if not subject.has_lr:
        return
    rate = 2.0 * float(subject.defaults["lr"])
    lr = torch.tensor(0.0, device="cpu")
    params, others, made = parameters(), parameters(), list[torch.optim.Optimizer]()
    if refusal(lambda: made.append(subject.make(params, lr=lr)), TypeError, ValueError) is not None:
        return
    opt, other = made[0], subject.make(others)
    before = values(params)
    walk(opt, params, [1])
    require_equal(params, before, "while the tensor holds 0 nothing should move")
    kept = opt.param_groups[0]["lr"]
    require(isinstance(kept, torch.Tensor), f"the group holds lr as a {type(kept).__name__} after stepping")
    kept.fill_(rate)
    other.param_groups[0]["lr"] = 0.0
    walk(other, others, [1])
    other.param_groups[0]["lr"] = rate
    walk(opt, params, [2, 3])
    walk(other, others, [2, 3])
    require_close(params, others, f"a tensor filled with {rate:g} should do as lr={rate:g}", 1e-5)
    require(float(kept) == torch.tensor(rate).item(), f"stepping changed the tensor from {rate:g} to {float(kept):g}")


@law
def maximize_is_descent_on_the_negative(subject: Subject) -> None:
    """Where ``maximize`` is offered, climbing is descending with gradients of the other sign."""
    if "maximize" not in subject.defaults:
        return
    up, down = parameters(dtype=torch.float64), parameters(dtype=torch.float64)
    climbing = subject.make(up, maximize=not subject.defaults["maximize"])
    descending = subject.make(down)
    for seed in range(1, 8):
        give_gradients(up, seed)
        for p, q in zip(up, down, strict=True):
            q.grad = -p.grad if p.grad is not None else None
        climbing.step()
        descending.step()
    require_close(up, down, "maximize should do as gradients of the other sign", 1e-12)


@law
def zero_grad_clears_gradients(subject: Subject) -> None:
    """``zero_grad()`` makes gradients None; ``zero_grad(set_to_none=False)`` fills them with zeros where they lie."""
    params = parameters()
    opt = subject.make(params)
    give_gradients(params, 1)
    kept = [p.grad for p in params]
    opt.zero_grad(set_to_none=False)
    for p, gradient in zip(params, kept, strict=True):
        zeroed = gradient is not None and p.grad is gradient and not gradient.any()
        require(zeroed, "zero_grad(set_to_none=False) did not fill gradients with zeros")
    opt.zero_grad()
    require(all(p.grad is None for p in params), "zero_grad() left gradients")
