"""Gradient release: every parameter steps as its gradient arrives, and the gradient is freed at once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from onepass.backends import mesh
from onepass.backends.select import Runner
from onepass.compiler import Work, compile_rule
from onepass.groups import Group, stages_of
from onepass.lang import Level
from onepass.optim import scheduling
from onepass.optim.optimizer import Optimizer

_SHOWN = 4
# Their own hooks take the gradients in hand after those of a tensor have run.
_WRAPPERS = ("DistributedDataParallel", "FullyShardedDataParallel")
# Who releases the gradient of which parameter (weakly: an optimizer may be dropped as it is), so that no two do.
_released: WeakIdKeyDictionary = WeakIdKeyDictionary()


def release_gradients(model: torch.nn.Module, opt: Optimizer, *, accumulate: int = 1) -> GradientRelease:
    """Step every parameter during ``backward()``, as its gradient arrives, and free the gradient at once.

    The gradients of a model then never exist all at the same time: their peak memory falls from that of the whole model
    to about that of its largest layer. The numbers are those of ordinary training, bit for bit, and the loop stays as
    it is. Its calls mean:

    - ``backward()`` steps each parameter with the hyperparameters that its group holds then, and sets ``p.grad`` to
      None. What looks at gradients afterwards, such as `torch.nn.utils.clip_grad_norm_`, finds none.
    - ``opt.step()`` ends the iteration, and has to be called once for each. It steps the parameters that still hold a
      gradient (after fewer than ``accumulate`` arrivals, or put there by hand) and frees it; none steps twice. Step
      hooks run here, once an iteration, after most of the stepping. Schedules of `onepass.schedules` advance here, and
      torch's schedulers count these calls.
    - ``opt.zero_grad()`` drops the gradients that are kept for accumulation, and begins to count their arrivals anew.
      ``set_to_none=False`` finds nothing to fill with zeros once a gradient has been freed. Use it in the place of
      ``model.zero_grad()``, of which the optimizer does not know.

    Save checkpoints after ``opt.step()``. They are ordinary ones, and loading one goes on as usual. A copy of the
    optimizer (deepcopy, pickle) is an ordinary optimizer. Parameters without a gradient are left alone, frozen ones
    step once they are thawed, tied ones step once, and those added by ``opt.add_param_group`` join in. Several
    optimizers may release the gradients of one model if they share no parameter. Models sharded by FSDP2
    (``fully_shard``) work; ``DistributedDataParallel`` and FSDP1 do not, for they sum the gradients over the processes
    after a parameter has stepped.

    Args:
        model: the model that all parameters of ``opt`` belong to. Others of its parameters are left alone.
        opt: an optimizer of this library.
        accumulate: >= 1; a parameter steps at every so many arrivals of its gradient, which is kept meanwhile: the
            number of ``backward()`` calls before each ``opt.step()``.

    Returns:
        A handle. Its ``remove()``, or the end of a ``with`` block, makes ``opt`` an ordinary optimizer again.

    Raises:
        TypeError: an argument is of another type.
        ValueError: ``accumulate`` is less than 1; a parameter is not the model's, or is released already; or the
            optimizer or the model is one that needs all gradients at once: a transform that spans the model
            (`onepass.clip_norm`), ``skip_nonfinite=True``, ``differentiable=True``, DistributedDataParallel, FSDP1.

    Later on a RuntimeError names what cannot be: any of these switched on afterwards, a closure, a GradScaler (at
    ``scaler.step``), a second arrival without ``opt.step()``, or hyperparameters changed between ``backward()`` and
    ``opt.step()``.

    Example:
        >>> import torch, onepass
        >>> model = torch.nn.Linear(3, 1)
        >>> opt = onepass.AdamW(model.parameters(), lr=1e-3)
        >>> with onepass.release_gradients(model, opt):
        ...     model(torch.ones(2, 3)).sum().backward()
        ...     print(model.weight.grad)
        ...     opt.step()
        None

    References:
        Lv et al., Full parameter fine-tuning for large language models with limited resources, arXiv:2306.09782.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"release_gradients takes a torch.nn.Module, not {model!r}")
    if not isinstance(opt, Optimizer):
        raise TypeError(f"release_gradients takes an optimizer of onepass, not a {type(opt).__name__}")
    if isinstance(accumulate, bool) or not isinstance(accumulate, int):
        raise TypeError(f"release_gradients: accumulate is a whole number, not {accumulate!r}")
    if accumulate < 1:
        raise ValueError(f"release_gradients: accumulate must be 1 or more, not {accumulate}")
    wrapper = next((kind for module in model.modules() if (kind := _wrapper(module))), None)
    if wrapper:
        raise ValueError(
            f"release_gradients: {wrapper} sums gradients over the processes only after the parameters would have "
            "stepped with their own; shard the model with torch.distributed.fsdp.fully_shard, or train without release"
        )
    if opt._release is not None:
        raise ValueError(f"release_gradients: this {type(opt).__name__}'s gradients are released already")
    reason = _obstacle(opt)
    if reason:
        raise ValueError(reason)
    return GradientRelease(model, opt, accumulate)


class GradientRelease:
    """The handle that `release_gradients` returns; see there. It is a context manager as well."""

    def __init__(self, model: torch.nn.Module, opt: Optimizer, accumulate: int):
        self._model, self._opt, self._accumulate = model, opt, accumulate
        self._name = type(opt).__name__
        # Gradients may arrive in several threads, one for each device.
        self._lock = threading.RLock()
        self._hooks: dict[torch.Tensor, Any] = {}
        # One for each parameter: its kernel's tables are made once and stay, as an ordinary step's do.
        self._runners: dict[torch.Tensor, Runner] = {}
        self._arrivals: dict[torch.Tensor, int] = {}
        # Of the iteration under way: who has stepped, and what the groups ask for, once anyone has.
        self._stepped: set[torch.Tensor] = set()
        self._works: list[Work] | None = None
        self._work_of: dict[torch.Tensor, Work] = {}
        self._take_in(opt.param_groups)
        opt._release = self
        # A scaler then calls step() whatever it has found, and hears there that it cannot be.
        opt._step_supports_amp_scaling = True

    def remove(self) -> None:
        """Make the optimizer an ordinary one again. Gradients that are kept for accumulation stay where they are."""
        with self._lock:
            for p, hook in self._hooks.items():
                hook.remove()
                _released.pop(p, None)
            self._hooks.clear()
            self._runners.clear()
            self._arrivals.clear()
            self._stepped.clear()
            self._forget_works()
            if self._opt._release is self:
                self._opt._release = None
                self._opt._step_supports_amp_scaling = bool(self._opt.defaults.get("fused"))

    def __enter__(self) -> GradientRelease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    # What the optimizer tells

    def _take_in(self, groups: Sequence[Group]) -> None:
        """Release the gradients of these groups' parameters too; all of them or, with an error, none."""
        names: dict[torch.Tensor, str] = {p: name for name, p in self._model.named_parameters()}
        params = [p for group in groups for p in group["params"]]
        strangers = [f"one of shape {tuple(p.shape)}" for p in params if p not in names]
        if strangers:
            raise ValueError(
                f"release_gradients: parameters of {self._name} are not {type(self._model).__name__}'s: "
                f"{_some(strangers)}; give the model that has them all"
            )
        taken = [names[p] for p in params if p in _released and _released[p]() is not None]
        if taken:
            raise ValueError(
                f"release_gradients: the gradients of {_some(taken)} are released already; call remove() on the "
                "handle that did it first"
            )
        handle = weakref.ref(self)

        def arrived(p: torch.Tensor) -> None:
            # Autograd holds hooks where the garbage collector cannot see them; they must hold nothing in turn.
            release = handle()
            if release is not None:
                release._arrived(p)

        for p in params:
            frozen = not p.requires_grad
            p.requires_grad_(True)
            self._hooks[p] = p.register_post_accumulate_grad_hook(arrived)
            p.requires_grad_(not frozen)
            _released[p] = handle
        self._forget_works()

    def _restart(self) -> None:
        """Begin anew: the optimizer's groups and states are others now."""
        with self._lock:
            self._runners.clear()
            self._stepped.clear()
            self._forget_works()

    def _forget_arrivals(self) -> None:
        self._arrivals.clear()

    def _finish(self, closure: Any) -> None:
        """End the iteration: what ``opt.step()`` does now."""
        with self._lock:
            self._check_call(closure)
            again = [p for p in self._stepped if p.grad is not None]
            if again:
                raise RuntimeError(
                    f"{self._name}: the gradient of {_some(self._names(again))} is there again after its step: other "
                    "code writes it once it has been released, as DistributedDataParallel does, of whose processes "
                    "each has now stepped on its own. Train without release_gradients"
                )
            if self._works is None:
                self._begin()
            else:
                self._check_unchanged(self._works)
            assert self._works is not None
            mesh.agree(self._works)
            for p, work in self._work_of.items():
                if p.grad is not None:
                    self._step(p, work)
            scheduling.finish(self._opt.param_groups)
            self._arrivals.clear()
            self._stepped.clear()
            self._forget_works()

    # Stepping

    def _arrived(self, p: torch.Tensor) -> None:
        with self._lock:
            if p in self._stepped:
                raise RuntimeError(
                    f"{self._name}: the gradient of {_some(self._names([p]))} arrived again after its step: call "
                    "opt.step() after every backward(), one that failed included; for N of them before each step "
                    "give release_gradients accumulate=N"
                )
            self._arrivals[p] = self._arrivals.get(p, 0) + 1
            if self._arrivals[p] < self._accumulate:
                return
            if self._works is None:
                self._begin()
            # One that was taken out of its group meanwhile keeps its gradient, as with an ordinary optimizer.
            work = self._work_of.get(p)
            if work is not None:
                self._step(p, work)

    def _begin(self) -> None:
        """Settle what the groups ask for in this iteration; nothing has been stepped yet."""
        opt = self._opt
        reason = _obstacle(opt)
        if reason:
            raise RuntimeError(reason)
        if opt._averages_are_in:
            raise RuntimeError(f"{self._name}: a gradient arrived inside `with opt.averaged()`; leave it first")
        scheduling.begin(self._name, opt.param_groups, opt._check)
        self._works = [opt._work(group) for group in opt.param_groups]
        self._work_of = {p: work for work in self._works for p in work.params}

    def _step(self, p: torch.Tensor, work: Work) -> None:
        # A shard's sums need the other processes' parts: FSDP2 calls the hooks on all of them in the same order, once
        # it has reduced the gradients together.
        runner = self._runners.get(p)
        if runner is None:
            runner = self._runners[p] = Runner(self._opt.backend)
        with torch.no_grad():
            runner.step([Work(work.program, work.values, [p], work.prepare)], {p: self._opt.state[p]})
        p.grad = None
        self._stepped.add(p)

    def _check_call(self, closure: Any) -> None:
        opt = self._opt
        if closure is not None:
            raise RuntimeError(
                f"{self._name}: step takes no closure while gradients are released: call backward() yourself, then "
                "opt.step()"
            )
        if hasattr(opt, "found_inf") or getattr(opt, "grad_scale", None) is not None:
            # The scaler takes them away only after a step that went well.
            for name in ("found_inf", "grad_scale"):
                vars(opt).pop(name, None)
            raise RuntimeError(_no_scaler(self._name))

    def _check_unchanged(self, used: Sequence[Work]) -> None:
        now = [self._opt._work(group) for group in self._opt.param_groups]
        for before, after in zip(used, now, strict=True):
            changed = sorted(k for k, v in after.values.items() if before.values.get(k) != v)
            if changed or before.program is not after.program:
                what = ", ".join(changed) or "weight_decay, maximize or another choice of what is computed"
                raise RuntimeError(
                    f"{self._name}: {what} changed between backward() and opt.step(), and the parameters have stepped "
                    "with the old value: change hyperparameters before backward(), or after opt.step()"
                )

    def _forget_works(self) -> None:
        self._works = None
        self._work_of = {}

    def _names(self, params: Sequence[torch.Tensor]) -> list[str]:
        names: dict[torch.Tensor, str] = {p: name for name, p in self._model.named_parameters()}
        return [names.get(p, f"a parameter of shape {tuple(p.shape)}") for p in params]


def _obstacle(opt: Optimizer) -> str | None:
    """Why an optimizer's parameters cannot step one by one, or None if they can."""
    name = type(opt).__name__
    if opt.skip_nonfinite:
        return f"{name}: skip_nonfinite=True needs all gradients before any parameter steps; {_CHOOSE}"
    if opt.defaults["differentiable"]:
        return f"{name}: differentiable=True needs the gradients that would be freed; {_CHOOSE}"
    if getattr(opt, "grad_scale", None) is not None:
        return _no_scaler(name)
    for group in opt.param_groups:
        if opt.program(group).span == Level.MODEL:
            rule = opt.rule_for(group)
            wide = [given for given in opt.transforms if compile_rule(rule, stages_of([given])).span == Level.MODEL]
            what = ", ".join(given.transform.name for given in wide) or f"the rule {rule.name}"
            return f"{name}: {what} spans the model and needs all gradients before any parameter steps; {_CHOOSE}"
    return None


_CHOOSE = "leave it out, or train without release_gradients"


def _no_scaler(name: str) -> str:
    return (
        f"{name}: a GradScaler cannot unscale gradients that are released: the parameters have stepped with the scaled "
        "ones. Train in bfloat16 without a scaler, or without release_gradients, from the last checkpoint"
    )


def _wrapper(module: torch.nn.Module) -> str | None:
    return next((kind.__name__ for kind in type(module).__mro__ if kind.__name__ in _WRAPPERS), None)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
