"""The one ``torch.optim.Optimizer`` with logic: every optimizer class below it only names its rule and its defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from onepass.backends import mesh
from onepass.backends.reference import real
from onepass.backends.select import choose
from onepass.compiler import GUARD, Program, Stage, Work, initial_value
from onepass.groups import (
    Group,
    check_group,
    check_transforms,
    compile_group,
    host_values,
    settle_decay,
    stages_of,
)
from onepass.lang import Applied, Rule
from onepass.optim import arguments, scheduling
from onepass.optim.checkpoint import in_the_order_of_names, restore
from onepass.optim.hooks import hooked
from onepass.optim.signals import Signals, as_it_is, inverse
from onepass.transforms import average
from onepass.transforms.gradient import unscale, watch

if TYPE_CHECKING:
    from onepass.optim.release import GradientRelease


class Optimizer(Signals, torch.optim.Optimizer):
    """Base of all optimizers.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dicts of parameter groups, as `torch.optim` takes them.
        defaults: the hyperparameters and flags, with torch's names; each hyperparameter may be a schedule of the step
            (`onepass.schedules`), which the parameter groups then follow. And besides them
        transforms: changes to the rule, such as ``[clip_value(1.0), lookahead(k=5)]``. Each transforms the gradient,
            the direction or the parameter (see `onepass.lang.Transform`), in the given order. Their hyperparameters
            stand in the parameter groups under ``lookahead_k``, ``lookahead_alpha``, ... and can be changed there.
        skip_nonfinite: leave everything as it is, step counts included, in a step where any gradient holds a NaN or an
            infinity. ``opt.skipped_steps`` counts them.
        backend: ``"cpu"``, ``"triton"`` (GPUs) or ``"reference"``; None takes what ``ONEPASS_BACKEND`` says, else for
            each tensor the fastest that serves it.

    What torch's flags mean here:

    - ``maximize``: climb instead of descending.
    - ``differentiable``: autograd follows the step, through gradients and states, not through hyperparameters. The
      reference runs; parameters must be no leaves, as in torch.
    - ``foreach``: torch's choice between its own loops. Every value is served by the one kernel that takes all
      tensors at once; where none can be compiled the reference runs, and one warning says why.
    - ``fused``: as ``foreach``, and True lets a ``GradScaler`` leave unscaling and skipping to the step, as torch's
      fused optimizers do. The gradients themselves stay scaled.
    - ``capturable``: True makes steps that a CUDA graph can replay. Step counts, and what follows from them, then live
      on the GPU, as with ``fused`` and ``skip_nonfinite``; a learning rate that is a tensor is read there by a kernel.
      A number is what the graph replays. With parameters on a CPU the step raises, as torch's does, or with ``fused``
      it means nothing, as in torch.

    **Complex** parameters are stepped as pairs of reals, as in torch: squares are of the real and of the imaginary
    part, not of the modulus. What reduces over a tensor (clipping by norm, centralising) refuses them at the step.

    **Sparse** gradients (COO, whole rows, as ``Embedding(sparse=True)`` makes them) are stepped row by row, "lazily",
    as by ``torch.optim.SparseAdam``. The rows that a gradient holds are stepped as if they were the parameter; the
    others rest, where a dense gradient of zeros would still decay their averages, move them by their momentum and
    shrink them by weight decay. The step count is the whole parameter's, for the bias corrections too. What spans more
    than an element (norms, means) refuses sparse gradients at the step.

    **What is stricter than in torch**, so that no mistake passes in silence: hyperparameters are finite, pairs of them
    tuples or lists, and neither strings nor bools nor tensors that require a gradient; a flag is True or False (or 1,
    0, None); names are strings; what holds for all groups (transforms, backend, ``skip_nonfinite``, ``fused``,
    ``capturable``, ``differentiable``) is not said in one. A parameter that is listed twice steps once. Numbers of
    other libraries become Python's, so that checkpoints load with ``weights_only=True``; tensors stay tensors.

    Raises:
        TypeError: a hyperparameter is no number (``"1e-4"``), a transform is none, a parameter is no tensor.
        ValueError: a hyperparameter is out of range, in the defaults or in any group; the message names the value.
            Or transforms cannot be combined, a group has no ``params``, or a parameter is in two groups or no leaf.
        RuntimeError: ``fused`` with ``foreach`` or ``differentiable``, as in torch.
    """

    rule: ClassVar[Rule]
    decay_form: ClassVar[str] = "decoupled"
    built_in: ClassVar[tuple[Applied, ...]] = ()
    paper: ClassVar[str] = ""
    _reports: Mapping[str, float] = MappingProxyType({})
    _averages_are_in: bool = False
    # Set while `onepass.release_gradients` lets parameters step during backward; a copy of the optimizer is not.
    _release: GradientRelease | None = None

    def __init__(self, params: Any, defaults: dict[str, Any]):
        name = type(self).__name__
        defaults = {**defaults, "decay": None}
        self.transforms: tuple[Applied, ...] = arguments.as_transforms(name, defaults.pop("transforms"))
        self.backend: str | None = defaults.pop("backend")
        arguments.check_backend(name, self.backend)
        choose(self.backend)
        arguments.settle_flags(name, defaults)
        self.skip_nonfinite = bool(defaults.pop("skip_nonfinite"))
        self._skipped_steps = 0
        self._programs: dict[Any, Program] = {}
        # What torch's GradScaler asks before it leaves unscaling and skipping to the step itself.
        self._step_supports_amp_scaling = bool(defaults.get("fused"))
        settle_decay(name, defaults)
        defaults.update(check_transforms(name, self.transforms, defaults))
        arguments.settle_numbers(defaults)
        self._check_flags(defaults)
        # Checked here as well as for each group, so that a bad default is told apart from a bad group.
        for case in scheduling.cases(defaults):
            self._check(case)
        super().__init__(arguments.as_params(name, params), defaults)

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
        return tuple(Stage(given.transform) for given in cls.built_in) if cls.built_in else ()

    def program(self, group: Group) -> Program:
        """The compiled program of a parameter group as it stands now."""
        if isinstance(group["weight_decay"], Applied):
            settle_decay(type(self).__name__, group)
        scaled = getattr(self, "grad_scale", None) is not None
        own, form = self.stages_for(group), self.decay_form_of(group)
        flags = (scaled, self.skip_nonfinite, bool(group["maximize"]), group["weight_decay"] != 0)
        case = (self.rule_for(group), own, form, *flags)
        program = self._programs.get(case)
        if program is None:
            first = (Stage(unscale),) * scaled + (Stage(watch),) * self.skip_nonfinite
            stages = own + stages_of(self.transforms)
            program = self._programs[case] = compile_group(self.rule_for(group), stages, form, group, first)
        return program

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
            name, param_group = type(self).__name__, dict(param_group)
            arguments.settle_group(name, param_group, self.defaults)
            settle_decay(name, param_group)
            arguments.settle_numbers(param_group)
            scheduling.inherit(param_group, self.defaults, name)
            whole = {**self.defaults, **param_group}
            for case in scheduling.cases(whole):
                self._check(case)
            # What cannot be compiled, as two transforms with one state, is said here and not at the first step.
            self.program(whole)
            if whole["decay"] == "independent":
                param_group["lr_peak"] = scheduling.peak(whole)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        arguments.keep_one_of_each(group)
        if self._release is not None:
            try:
                self._release._take_in([group])
            except ValueError:
                self.param_groups.pop()
                raise

    def _check(self, group: Group) -> None:
        prefixed = [("", given) for given in self.built_in]
        prefixed += [(f"{given.transform.name}_", given) for given in self.transforms]
        check_group(type(self).__name__, self.rules(), prefixed, group)

    def _check_flags(self, defaults: Group) -> None:
        name = type(self).__name__
        if defaults.get("fused") and defaults.get("foreach"):
            raise RuntimeError(f"{name}: `fused` and `foreach` cannot be `True` together")
        if defaults.get("fused") and defaults.get("differentiable"):
            raise RuntimeError(f"{name}: `fused` does not support `differentiable`")

    # The step

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """The wrapper of ``step`` in all classes; see `onepass.optim.hooks.hooked`."""
        return hooked(func)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: evaluates the model again and returns the loss; it runs first, with gradients enabled.

        Returns:
            What the closure returned, else None.

        Raises:
            RuntimeError: a gradient is sparse, or complex, where the rule or a transform spans more than an element; or
                of integers; or the averages are in place. Nothing has been changed then.
            ValueError: a state's type cannot hold its initial value.
        """
        if self._release is not None:
            return self._release._finish(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._averages_are_in:
            raise RuntimeError(f"{type(self).__name__}: step inside `with opt.averaged()`; leave it first")
        skip = self._signal()
        if skip is True:
            return loss
        before = self.skipped_steps if self.skip_nonfinite and self._is_scheduled() else 0
        scheduling.begin(type(self).__name__, self.param_groups, self._check)
        differentiable = self.defaults["differentiable"]
        with torch.set_grad_enabled(differentiable):
            works = [self._work(group) for group in self.param_groups]
            mesh.agree(works)
            on_device = any(work.counts_on_device for work in works)
            reports = self._runner().step(works, self.state, **self._flags(on_device, skip))
        skipped = reports.get(GUARD, 0) > 0
        self._skipped_steps += skipped
        if self._is_scheduled() and not skipped and not (self.skip_nonfinite and self.skipped_steps > before):
            scheduling.finish(self.param_groups)
        self._reports = reports or self._reports
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, or with ``set_to_none=False`` fill them with zeros."""
        super().zero_grad(set_to_none)
        if self._release is not None:
            self._release._forget_arrivals()

    @property
    def last_grad_norm(self) -> float | None:
        """The norm of all gradients in the last step, before clipping; None before the first step.

        Raises:
            AttributeError: no transform measures it.
        """
        if all("last_grad_norm" not in given.transform.reports for given in self.transforms):
            raise AttributeError(f"{type(self).__name__} measures no norm: give it transforms=[clip_norm(max_norm)]")
        return self._reports.get("last_grad_norm")

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averages that ``transforms=[average(decay)]`` keeps in the parameters' place, and back at the end.

        A parameter that has not stepped yet is its own average. Buffers, as batch norm's, are no parameters and stay.

        Raises:
            RuntimeError: no average is kept, or the averages are in place already.
        """
        if all(given.transform is not average for given in self.transforms):
            raise RuntimeError(f"{type(self).__name__} keeps no averages: give it transforms=[average(0.999)]")
        if self._averages_are_in:
            raise RuntimeError(f"{type(self).__name__}: the averages are in place already")
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._averages_are_in = True
        try:
            with torch.no_grad():
                for p in (p for group in self.param_groups for p in group["params"]):
                    if "average" in self.state.get(p, {}):
                        kept.append((p, p.detach().clone(memory_format=torch.preserve_format)))
                        p.copy_(self.state[p]["average"])
            yield
        finally:
            with torch.no_grad():
                for p, value in kept:
                    p.copy_(value)
            self._averages_are_in = False

    def _work(self, group: Group) -> Work:
        program = self.program(group)
        on_device = self._reads_signals()
        try:
            values = host_values(program, group, as_it_is if on_device else float)
        except TypeError:
            # What is no number may be a schedule, assigned since the last step.
            if not scheduling.checked_adopt(group, self._check):
                raise
            return self._work(group)
        scale = getattr(self, "grad_scale", None)
        if scale is not None:
            values["inverse_scale"] = inverse(scale, on_device)
        return Work(program, values, group["params"], self._state_of, on_device)

    # States

    def init_state(self) -> None:
        """Give every parameter its states now, with a step count of 0, instead of at its first step."""
        with torch.no_grad():
            for group in self.param_groups:
                work = self._work(group)
                for p in group["params"]:
                    # What is stored in integers rests: no step would be taken.
                    if p.is_floating_point() or p.is_complex():
                        self._state_of(p, work.program, work.values)

    def _state_of(self, p: torch.Tensor, program: Program, values: Mapping[str, float]) -> dict[str, Any]:
        """The states of a parameter, those that it lacks made now."""
        state = self.state[p]
        if "step" not in state:
            if p.dtype.itemsize == 1 or not (p.is_floating_point() or p.is_complex()):
                raise RuntimeError(
                    f"{type(self).__name__}: a parameter of type {p.dtype} has a gradient, and steps are taken in 16 "
                    "bits or more: keep a wider copy of it to be stepped, or take its gradient away"
                )
            # A checkpoint of torch's SGD has buffers and no count: those buffers have seen at least one step.
            seen = any(state.get(key) is not None for key in program.initial)
            state["step"] = torch.tensor(float(seen), dtype=torch.float32, device=self._counts_device(p))
        for key in program.initial:
            if state.get(key) is None:
                value = initial_value(program, key, real(p), {**values, "ndim": p.ndim}, torch)
                if key in program.scalars:
                    state[key] = torch.tensor(value, dtype=torch.float64, device=self._counts_device(p))
                else:
                    dtype = torch.promote_types(p.dtype, torch.float32) if key in program.precise else p.dtype
                    new = torch.empty_like(p, dtype=dtype, memory_format=torch.preserve_format)
                    arguments.fill(type(self).__name__, key, real(new), value)
                    state[key] = new
        return state

    # Copies and checkpoints

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("transforms", "backend", "skip_nonfinite")}
        own["_skipped_steps"] = self.skipped_steps
        # Not as it is now: a copy's gradients are not released.
        return {**super().__getstate__(), **own, "_step_supports_amp_scaling": bool(self.defaults.get("fused"))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._programs = {}
        # The states are others now, and a runner knows where the old ones lie.
        self._forget_runner()
        if self._release is not None:
            self._release._restart()
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, of this class or of the torch class of the same name.

        States keep the type they were saved in, so that a round trip is exact. Hyperparameters come from the
        checkpoint, those it lacks from the constructor.

        With named parameters on both sides, states go to the parameters of the same names, whatever their order.

        Raises:
            ValueError: the groups do not match this optimizer's, or the names do not.
        """
        final: list[dict[str, Any]] = []

        def adapt(_: Any, loaded: dict[str, Any]) -> dict[str, Any]:
            final.append(in_the_order_of_names(type(self).__name__, self.param_groups, loaded))
            return final[0]

        # Registered last, it sees what the user's own hooks have made of the dict.
        before = [scheduling.scheduled(group) for group in self.param_groups]
        handle = self.register_load_state_dict_pre_hook(adapt)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        scheduling.settle_loaded(type(self).__name__, before, self.param_groups)
        on_host = [frozenset({"step", *self.program(group).scalars}) for group in self.param_groups]
        if self._leaves_counts_to_device:
            on_host = [frozenset[str]() for _ in on_host]
        restore(self.param_groups, self.state, final[0], on_host)


# So that help() of every class says what they all have in common: its constructor inherits these words.
Optimizer.__init__.__doc__ = Optimizer.__doc__
