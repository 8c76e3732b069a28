"""Optimizers by name, and classes made from rules."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onepass import rules
from onepass.backends.cpu.emit import emit
from onepass.backends.tables.writing import STORAGE, layout
from onepass.backends.triton.emit import tiled
from onepass.backends.triton.plan import plan_of
from onepass.compiler import Program, Stage, Variant, on_host
from onepass.compiler import equations as equations_of
from onepass.groups import Group, compile_group, stages_of
from onepass.lang import Applied, Rule
from onepass.optim import classes
from onepass.optim.names import nearest
from onepass.optim.optimizer import Optimizer
from onepass.transforms import decay

CLASSES: dict[str, type[Optimizer]] = {
    cls.__name__.lower(): cls
    for cls in (
        classes.Adadelta,
        classes.Adagrad,
        classes.Adam,
        classes.AdamW,
        classes.Adamax,
        classes.NAdam,
        classes.RAdam,
        classes.Ranger,
        classes.RMSprop,
        classes.SGD,
        classes.Yogi,
    )
}


class UnknownName(ValueError):
    """No optimizer or rule has this name; the message says which is nearest."""

    def __init__(self, what: str, name: str, known: Sequence[str]):
        super().__init__(f"unknown {what} {name!r}: {nearest(name, known)}")


def list_optimizers() -> list[str]:
    """The names that `create` takes."""
    return sorted(CLASSES)


def get_class(name: str) -> type[Optimizer]:
    """The optimizer class of a name, in upper or lower case.

    Raises:
        UnknownName: a ValueError that says which name is nearest.
        TypeError: it is no name.
    """
    try:
        return CLASSES[_lower(name)]
    except KeyError:
        raise UnknownName("optimizer", name, list_optimizers()) from None


def _lower(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"optimizers have names, such as 'adamw'; {name!r} is none")
    return name.lower()


def create(
    name: str, params: Any, lr: float | None = None, weight_decay: Any = None, **hyperparameters: Any
) -> Optimizer:
    """An optimizer by name.

    Args:
        name: one of `list_optimizers`, in upper or lower case.
        params: what the class takes.
        lr: learning rate; None leaves the class's default.
        weight_decay: a float or a form of `onepass.decay`; None leaves the class's default.
        **hyperparameters: whatever else the class takes.

    Raises:
        UnknownName: there is no such optimizer.
        TypeError: it takes no such hyperparameter; the message says which is nearest. Or ``name`` is no string.

    Example:
        >>> import torch, onepass
        >>> opt = onepass.create("ranger", torch.nn.Linear(3, 1).parameters(), lr=1e-3, k=5)
    """
    cls = get_class(name)
    given = {"lr": lr, "weight_decay": weight_decay}
    hyperparameters.update((key, value) for key, value in given.items() if value is not None)
    known = [key for key in inspect.signature(cls).parameters if key != "params"]
    for key in hyperparameters:
        if key not in known:
            raise TypeError(f"{cls.__name__} takes no {key!r}; {nearest(key, known)}")
    return cls(params, **hyperparameters)


def optimizer(rule: Rule, *, weight_decay: str = "decoupled", name: str | None = None) -> type[Optimizer]:
    """The optimizer class of a rule.

    Its constructor takes ``params``, ``lr``, the rule's hyperparameters in their order, ``weight_decay``, and by
    keyword ``transforms``, ``skip_nonfinite``, ``backend``, ``maximize`` and ``differentiable``.

    Args:
        rule: what `onepass.rule` made.
        weight_decay: the form that a plain float means: ``"l2"``, ``"decoupled"`` or ``"independent"``.
        name: of the class; by default the rule's, in capitals: ``my_rule`` becomes ``MyRule``.

    Raises:
        TypeError: ``rule`` is no rule.
        ValueError: there is no such form of weight decay.

    Example:
        >>> import torch, onepass
        >>> from onepass import ema, sign
        >>> @onepass.rule
        ... def signum(g, m, *, momentum=0.9):
        ...     m = ema(m, g, momentum)
        ...     return sign(m), m
        >>> Signum = onepass.optimizer(signum)
        >>> opt = Signum(torch.nn.Linear(3, 1).parameters(), lr=1e-4, momentum=0.95)
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"optimizer takes a rule, made by @onepass.rule, not {rule!r}")
    if not isinstance(weight_decay, str) or weight_decay not in decay.FORMS:
        raise ValueError(f"weight_decay is the name of a form, one of {', '.join(decay.FORMS)}, not {weight_decay!r}")
    title = name or "".join(part.capitalize() for part in rule.name.split("_"))
    positional = {"lr": rule.lr, **rule.hyperparameters, "weight_decay": 0.0}
    keyword = {"transforms": (), "skip_nonfinite": False, "backend": None, "maximize": False, "differentiable": False}
    kind = inspect.Parameter
    signature = inspect.Signature(
        [kind("params", kind.POSITIONAL_OR_KEYWORD)]
        + [kind(key, kind.POSITIONAL_OR_KEYWORD, default=value) for key, value in positional.items()]
        + [kind(key, kind.KEYWORD_ONLY, default=value) for key, value in keyword.items()]
    )

    def __init__(self: Optimizer, *args: Any, **kwargs: Any) -> None:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{title}{signature}: {error}") from None
        bound.apply_defaults()
        defaults = dict(bound.arguments)
        Optimizer.__init__(self, defaults.pop("params"), defaults)

    __init__.__doc__ = Optimizer.__doc__
    body = {
        "__init__": __init__,
        "__doc__": inspect.getdoc(rule.function),
        "__module__": rule.function.__module__,
        "__signature__": signature,
        "rule": rule,
        "decay_form": weight_decay,
    }
    return type(title, (Optimizer,), body)


@dataclass(frozen=True)
class Description:
    """What `onepass list` shows of an optimizer.

    Attributes:
        name: as `create` takes it.
        title: the class's name.
        states: the checkpoint keys of its states.
        bytes_per_parameter: what a float32 step must load and store for each element, averaged over 600 steps.
        paper: where the rule comes from.
        lr: the default learning rate.
    """

    name: str
    title: str
    states: tuple[str, ...]
    bytes_per_parameter: float
    paper: str
    lr: float


def describe() -> list[Description]:
    """Every optimizer, with its defaults."""
    return [_describe(name, cls) for name, cls in sorted(CLASSES.items())]


def _defaults(cls: type[Optimizer]) -> Group:
    parameters = inspect.signature(cls).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name != "params"}


def _describe(name: str, cls: type[Optimizer]) -> Description:
    group = _defaults(cls)
    form = "decoupled" if cls is classes.AdamW else cls.decay_form
    program = compile_group(cls.rule_for(group), cls.stages_for(group), form, group)
    return Description(
        name,
        cls.__name__,
        tuple(program.states),
        4 * _traffic(program, group),
        cls.paper or cls.rule.paper,
        group["lr"],
    )


def _traffic(program: Program, group: Group) -> float:
    """The values loaded or stored for each element of a matrix in a step, on the average of steps 601 to 1200."""
    return sum(program.variant(_typical_values(program, group, t)).traffic() for t in range(601, 1201)) / 600


def _typical_values(program: Program, group: Group, t: int) -> dict[str, float]:
    """Host values for step ``t`` of a matrix, with scalar states as at the first step."""
    values = {key: value for key, value in group.items() if isinstance(value, (int, float))}
    values.update((f"betas[{i}]", beta) for i, beta in enumerate(group.get("betas", ())))
    scalars = {f"state.{key}": on_host(program.initial[key], values, {}) for key in program.scalars}
    return {**values, **scalars, "t": float(t), "ndim": 2.0}


def typical_step(name: str, transforms: Sequence[Applied] = ()) -> tuple[Program, Variant]:
    """An optimizer's program with weight decay, and the variant of it for a matrix after its first 600 steps."""
    cls = get_class(name)
    group = {**_defaults(cls), "weight_decay": 0.01}
    for given in transforms:
        group.update((f"{given.transform.name}_{key}", value) for key, value in given.items)
    program = compile_group(cls.rule_for(group), cls.stages_for(group) + stages_of(transforms), cls.decay_form, group)
    return program, program.variant(_typical_values(program, group, 601))


def kernel_source(
    name: str, dtype: str = "float32", transforms: Sequence[Applied] = (), *, backend: str = "cpu"
) -> str:
    """The source of the kernels that an optimizer runs, with weight decay, for a matrix after its first 600 steps.

    Args:
        name: an optimizer, in upper or lower case.
        dtype: what everything is stored as: ``"float32"``, ``"float64"``, ``"bfloat16"`` or ``"float16"``.
        transforms: transforms to apply as well.
        backend: ``"cpu"`` for what Numba compiles, ``"triton"`` for what runs on GPUs.

    Raises:
        UnknownName: there is no such optimizer.
        ValueError: there is no kernel for such a type, or no such backend.
    """
    if not isinstance(dtype, str) or dtype not in STORAGE:
        raise ValueError(f"no kernel stores {dtype!r}; choose one of {', '.join(STORAGE)}")
    if backend not in ("cpu", "triton"):
        raise ValueError(f"backend={backend!r} has no kernels; choose cpu or triton")
    program, variant = typical_step(name, transforms)
    storage = {"p": dtype, "g": dtype, **{f"state.{key}": dtype for key in program.states}}
    if backend == "triton":
        return plan_of(variant).source(tiled(storage))
    return "\n".join(emit(variant, layout(storage)))


def equations(name: str, latex: bool = False, transforms: Sequence[Applied] = ()) -> str:
    """The equations of an optimizer with its weight decay, or of a rule (``"nesterov"``, ``"amsgrad"``), by name.

    Args:
        name: an optimizer or a rule, in upper or lower case.
        latex: LaTeX instead of Unicode text.
        transforms: transforms to apply as well.

    Raises:
        UnknownName: there is neither; the message says which is nearest.
    """
    key = _lower(name)
    if key in CLASSES:
        cls = CLASSES[key]
        stages = cls.stages_for(_defaults(cls)) + stages_of(transforms)
        return equations_of(cls.rule_for(_defaults(cls)), (*stages, Stage(decay.FORMS[cls.decay_form])), latex=latex)
    if key in rules.RULES:
        return equations_of(rules.RULES[key], stages_of(transforms), latex=latex)
    raise UnknownName("optimizer or rule", name, [*list_optimizers(), *rules.RULES])
