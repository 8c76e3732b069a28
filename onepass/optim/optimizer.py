"""The one ``torch.optim.Optimizer`` with logic: every optimizer class below it only names its rule and its defaults."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch

from onepass.backends import reference
from onepass.compiler import Program, Stage, Update, initial_value, on_host
from onepass.lang import Applied, Rule
from onepass.optim.groups import (
    Group,
    check_group,
    check_transforms,
    compile_group,
    host_values,
    settle_decay,
    stages_of,
)


class Optimizer(torch.optim.Optimizer):
    """Base of all optimizers.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts of parameter groups, as `torch.optim` takes them.
        defaults: the hyperparameters and flags, with torch's names.
        transforms: changes to the rule, such as ``[clip_value(1.0), lookahead(k=5)]``. Each transforms the gradient,
            the direction or the parameter (see `onepass.lang.Transform`), in the given order. Their hyperparameters
            stand in the parameter groups under ``lookahead_k``, ``lookahead_alpha``, ... and can be changed there.

    What torch's flags mean here:

    - ``maximize``: climb instead of descending.
    - ``differentiable``: autograd follows the step, through gradients and states.
    - ``foreach``, ``fused``: True asks for a kernel that takes many tensors at once. There is none yet: the reference
      runs, and one warning says so. False and None leave the choice to the library.
    - ``capturable``: True asks for steps that a CUDA graph can replay; that raises, for step counts live on the host.

    Raises:
        TypeError: a hyperparameter is no number (``"1e-4"``), a transform is none, a parameter is no tensor.
        ValueError: a hyperparameter is out of range, in the defaults or in any group; the message names the value.
    """

    rule: ClassVar[Rule]
    decay_form: ClassVar[str] = "decoupled"
    built_in: ClassVar[tuple[Applied, ...]] = ()
    paper: ClassVar[str] = ""

    def __init__(self, params: Any, defaults: dict[str, Any], transforms: Sequence[Applied] = ()):
        name = type(self).__name__
        defaults = {**defaults, "decay": None}
        settle_decay(name, defaults)
        self.transforms = tuple(transforms)
        defaults.update(check_transforms(name, self.transforms, defaults))
        self._check_flags(defaults)
        # Checked here as well as for each group, so that a bad default is told apart from a bad group.
        self._check(defaults)
        super().__init__(params, defaults)

    # What a class says of itself

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """The rules that the class's flags choose from; the first is the one without flags."""
        return (cls.rule,)

    @classmethod
    def rule_for(cls, group: Group) -> Rule:
        """The rule that a group's flags call for."""
        return cls.rule

    @classmethod
    def stages_for(cls, group: Group) -> tuple[Stage, ...]:
        """The transforms that the class itself applies; their hyperparameters are the class's own."""
        return tuple(Stage(given.transform) for given in cls.built_in)

    def program(self, group: Group) -> Program:
        """The compiled program of a parameter group as it stands now."""
        if isinstance(group["weight_decay"], Applied):
            settle_decay(type(self).__name__, group)
        stages = self.stages_for(group) + stages_of(self.transforms)
        return compile_group(self.rule_for(group), stages, self.decay_form_of(group), group)

    def decay_form_of(self, group: Group) -> str:
        """The form of a group's weight decay: as given outright, else by torch's flag, else the class's own."""
        if group.get("decay") is not None:
            return group["decay"]
        if "decoupled_weight_decay" in group:
            return "decoupled" if group["decoupled_weight_decay"] else "l2"
        return self.decay_form

    # Parameter groups

    def add_param_group(self, param_group: Group) -> None:
        """Add a parameter group; the caller's dict is left as it was.

        Raises:
            TypeError, ValueError: as the constructor does.
        """
        if isinstance(param_group, dict):
            param_group = dict(param_group)
            settle_decay(type(self).__name__, param_group)
            whole = {**self.defaults, **param_group}
            self._check(whole)
            if whole["decay"] == "independent":
                param_group["lr_peak"] = float(whole["lr"])
        super().add_param_group(param_group)

    def _check(self, group: Group) -> None:
        prefixed = [("", given) for given in self.built_in]
        prefixed += [(f"{given.transform.name}_", given) for given in self.transforms]
        check_group(type(self).__name__, self.rules(), prefixed, group)

    def _check_flags(self, defaults: Group) -> None:
        name = type(self).__name__
        if defaults.get("capturable"):
            raise ValueError(
                f"{name}: capturable=True needs step counts on the device, which is not offered yet: "
                "leave it False and step outside the CUDA graph"
            )
        if defaults.get("fused") and defaults.get("foreach"):
            raise RuntimeError(f"{name}: `fused` and `foreach` cannot be `True` together")
        if defaults.get("fused") and defaults.get("differentiable"):
            raise RuntimeError(f"{name}: `fused` does not support `differentiable`")
        for flag in ("fused", "foreach"):
            if defaults.get(flag):
                warnings.warn(
                    f"{name}: {flag}=True asks for a multi-tensor kernel, and there is none yet: the reference runs",
                    stacklevel=4,
                )

    # The step

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss; it runs first, with gradients enabled.

        Returns:
            What the closure returned, else None.

        Raises:
            RuntimeError: a gradient is sparse; nothing has been changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        differentiable = self.defaults["differentiable"]
        with torch.set_grad_enabled(differentiable):
            updates, counters = [], []
            for group in self.param_groups:
                for update, counter in self._updates_of(group):
                    updates.append(update)
                    counters.append(counter)
            reference.step(updates, differentiable=differentiable)
            for counter in counters:
                counter()
        return loss

    def _updates_of(self, group: Group) -> Iterator[tuple[Update, Callable[[], None]]]:
        """Each parameter's update, and what sets its step count and scalar states once the update is done."""
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        for p in params:
            self._check_gradient(p)
        program = self.program(group)
        shared = host_values(program, group)
        rows: dict[tuple[float, ...], Any] = {}
        for p in params:
            state = self._state_of(p, program, shared)
            t = float(state["step"]) + 1
            scalars = tuple(float(state[key]) for key in program.scalars)
            situation = (t, p.ndim, *scalars)
            if situation not in rows:
                rows[situation] = _host_row(program, shared, t, p.ndim, scalars)
            variant, row, after = rows[situation]
            if variant.reductions and p.is_complex():
                raise RuntimeError(f"{type(self).__name__}: reductions over complex parameters are not offered")
            tensors = {key: _real(state[key]) for key in program.states}
            update = Update(variant, row, _real(p), _real(p.grad), tensors)
            yield update, _settler(state, t, after, tensors if self.defaults["differentiable"] else {})

    def _check_gradient(self, p: torch.Tensor) -> None:
        if p.grad.layout is not torch.strided:  # pyright: ignore[reportOptionalMemberAccess]
            raise RuntimeError(
                f"{type(self).__name__} does not take sparse gradients (layout {p.grad.layout}): "  # pyright: ignore[reportOptionalMemberAccess]
                "build the embedding with sparse=False, or give its weights to torch.optim.SparseAdam"
            )

    # States

    def init_state(self) -> None:
        """Give every parameter its states now, with a step count of 0, instead of at its first step."""
        with torch.no_grad():
            for group in self.param_groups:
                program = self.program(group)
                shared = host_values(program, group)
                for p in group["params"]:
                    self._state_of(p, program, shared)

    def _state_of(self, p: torch.Tensor, program: Program, shared: dict[str, float]) -> dict[str, Any]:
        state = self.state[p]
        if "step" not in state:
            # A checkpoint of torch's SGD has buffers and no count: those buffers have seen at least one step.
            seen = any(state.get(key) is not None for key in program.initial)
            state["step"] = torch.tensor(float(seen), dtype=torch.float32)
        for key in program.initial:
            if state.get(key) is None:
                value = initial_value(program, key, _real(p), {**shared, "ndim": p.ndim}, torch)
                if key in program.scalars:
                    state[key] = torch.tensor(value, dtype=torch.float64)
                else:
                    state[key] = torch.empty_like(p, memory_format=torch.preserve_format)
                    _real(state[key]).copy_(torch.as_tensor(value))
        return state

    # Copies and checkpoints

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "transforms": self.transforms}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, of this class or of the torch class of the same name.

        States keep the type they were saved in, so that a round trip is exact. Hyperparameters come from the
        checkpoint, those it lacks from the constructor.

        Raises:
            ValueError: the groups do not match this optimizer's.
        """
        final: list[dict[str, Any]] = []
        handle = self.register_load_state_dict_pre_hook(lambda _, loaded: final.append(loaded))
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        for group, saved in zip(self.param_groups, final[0]["param_groups"], strict=True):
            on_host_keys = {"step", *self.program(group).scalars}
            for p, index in zip(group["params"], saved["params"], strict=True):
                for key, value in final[0]["state"].get(index, {}).items():
                    if isinstance(value, torch.Tensor):
                        device = torch.device("cpu") if key in on_host_keys else p.device
                        self.state[p][key] = value.detach().clone().to(device)


def _host_row(
    program: Program, shared: dict[str, float], t: float, ndim: int, scalars: tuple[float, ...]
) -> tuple[Any, tuple[float, ...], tuple[tuple[str, float], ...]]:
    """The variant, its step values, and the scalar states afterwards, for parameters in the same situation."""
    values = {**shared, "t": t, "ndim": float(ndim)}
    values.update((f"state.{key}", value) for key, value in zip(program.scalars, scalars, strict=True))
    memo: dict[Any, Any] = {}
    variant = program.variant(values, memo)
    row = tuple(float(on_host(expression, values, memo)) for expression in variant.row)
    after = tuple((key, float(on_host(new, values, memo))) for key, new in program.scalars.items())
    return variant, row, after


def _settler(
    state: dict[str, Any], t: float, after: tuple[tuple[str, float], ...], replaced: dict[str, torch.Tensor]
) -> Callable[[], None]:
    def settle() -> None:
        state["step"].fill_(t)
        for key, value in after:
            state[key].fill_(value)
        for key, value in replaced.items():
            state[key] = torch.view_as_complex(value) if state[key].is_complex() else value

    return settle


def _real(x: torch.Tensor) -> torch.Tensor:
    """Complex numbers as pairs of reals, on which the rules work, as torch's do."""
    return torch.view_as_real(x) if x.is_complex() else x
