"""Paddle's parameters with everything that is their own: recipe, learning rate, gradient, states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import paddle
from paddle.regularizer import L2Decay, WeightDecayRegularizer

from onepass.functional.core import TYPES, Item, initial_states
from onepass.functional.families import Family
from onepass.functional.paddle import Paddle
from onepass.functional.recipe import Preset, Recipe, recipe
from onepass.lang import Applied
from onepass.transforms import decay

LIBRARY = Paddle()

_LOW = ("float16", "bfloat16")
_STORED = frozenset(getattr(paddle, name) for name in TYPES)


def named(owner: str, parameters: Any) -> list[Any]:
    """The parameters as Paddle's constructor takes them, a list of tensors or of dicts.

    Raises:
        TypeError, ValueError: they cannot be trained.
    """
    if parameters is None:
        raise ValueError(f"{owner}: give parameters=model.parameters()")
    if isinstance(parameters, (paddle.Tensor, Mapping)):
        raise TypeError(f"{owner}: parameters takes a list of tensors or of dicts, not one {type(parameters).__name__}")
    found = list(parameters)
    grouped = [isinstance(x, Mapping) for x in found]
    if any(grouped) and not all(grouped):
        raise TypeError(f"{owner}: parameters takes tensors or dicts of groups, not both in one list")
    if all(grouped):
        for group in found:
            if "params" not in group:
                raise ValueError(f"{owner}: a parameter group lacks 'params'; it has {', '.join(map(repr, group))}")
        found = [{**group, "params": _listed(group["params"])} for group in found]
    tensors = [p for x in found for p in (x["params"] if isinstance(x, dict) else [x])]
    if not tensors:
        raise ValueError(f"{owner}: there are no parameters")
    names: set[str] = set()
    for p in tensors:
        if not isinstance(p, paddle.Tensor):
            raise TypeError(f"{owner}: {p!r} is a {type(p).__name__}, not one of Paddle's tensors")
        if LIBRARY.dtype(p) not in TYPES:
            raise TypeError(f"{owner}: {p.name} is of type {LIBRARY.dtype(p)}; a parameter is of {', '.join(TYPES)}")
        if p.is_dist():
            raise RuntimeError(f"{owner}: {p.name} is spread over processes, which is not offered")
        if p.name in names:
            raise ValueError(f"{owner}: {p.name} is given twice, or two parameters bear that name")
        names.add(p.name)
    return found


def _listed(params: Any) -> list[Any]:
    return [params] if isinstance(params, paddle.Tensor) else list(params)


class Member:
    """One parameter.

    Attributes:
        p: the parameter.
        master: its float32 master weight, or None.
        g: its gradient in the step under way.
        t: how many steps it has taken.
        state: its states, or None before the first step.
    """

    def __init__(self, p: Any, made: Recipe, factor: float, regularizer: Any):
        self.p, self.recipe, self.factor, self.regularizer = p, made, factor, regularizer
        self.shape = tuple(p.shape)
        self.master: Any = None
        self.g: Any = None
        self.t = 0
        self.state: dict[str, Any] | None = None

    @property
    def target(self) -> Any:
        """What the rule steps: the master weight where there is one."""
        return self.p if self.master is None else self.master

    def prepare(self, g: Any, lr: float, multi_precision: bool) -> None:
        """Be ready for a step with this gradient and this learning rate of the optimizer.

        Raises:
            ValueError: the gradient, or by now the parameter, is of another shape or type than can be stepped.
        """
        for what, x in (("the gradient of ", g), ("", self.p)):
            if tuple(x.shape) != self.shape:
                raise ValueError(f"{what}{self.p.name} has the shape {tuple(x.shape)}; the optimizer has {self.shape}")
            if x.dtype not in _STORED:
                raise ValueError(f"{what}{self.p.name} is of type {LIBRARY.dtype(x)}; it must be of {', '.join(TYPES)}")
        if self.master is None and multi_precision and LIBRARY.dtype(self.p) in _LOW:
            self.master = self.p.astype("float32")
        if self.state is None:
            self.state = self.fresh()
        self.values = self.recipe.values(lr * self.factor)
        self.g = self._regularized(g)

    def fresh(self) -> dict[str, Any]:
        """The states before the first step."""
        given = self.recipe.whole
        with paddle.no_grad():
            return initial_states(given.program, given.host_values, [(self.p.name, self.target)], LIBRARY)[0]

    def _regularized(self, g: Any) -> Any:
        """The gradient with that of Paddle's regularizer."""
        if self.regularizer is None:
            return g
        p = self.target if self.target.dtype == g.dtype else self.target.astype(g.dtype)
        return g + self.regularizer(p, g, g.block)

    def tensors(self) -> list[Any]:
        """What the rule steps, the gradient, and the states that are tensors, in the program's order."""
        assert self.state is not None
        return [self.target, self.g, *(self.state[key] for key in self.recipe.program.states)]

    def item(self) -> Item:
        """What the step is to be computed from."""
        assert self.state is not None
        return Item(self.recipe.program, self.values, self.t + 1.0, self.target, self.g, self.state)


class Rated:
    """A recipe, with the values of the program's hyperparameters for the learning rate of the moment."""

    def __init__(self, whole: Recipe):
        self.whole, self.program = whole, whole.program
        self._lr: float | None = None
        self._values: dict[str, float] = {}

    def values(self, lr: float) -> dict[str, float]:
        """The same object as long as the rate stays."""
        if lr != self._lr:
            self._values = self.whole.changed({"lr": lr}, LIBRARY.is_traced)
            self._lr = lr
        return self._values


def members_of(
    family: Family,
    groups: Sequence[Mapping[str, Any]],
    lr: float,
    is_scheduled: bool,
    settings: Mapping[str, Any],
    is_decayed: Callable[[str], bool] | None,
    lr_ratio: Callable[[Any], float] | None,
) -> list[list[Member]]:
    """Each group's parameters with what is their own.

    Args:
        family: the class.
        groups: each with ``params`` and all its options.
        lr: the learning rate.
        is_scheduled: whether it follows one of Paddle's schedulers.
        settings: what every recipe has.
        is_decayed, lr_ratio: the constructor's ``apply_decay_param_fun`` and ``lr_ratio``.
    """
    found: list[list[Member]] = []
    for group in groups:
        options = dict(group)
        params, weight_decay = options.pop("params"), options.pop("weight_decay")
        clip, own_rate = options.pop("grad_clip"), options.pop("learning_rate", None)
        if clip is not None and not isinstance(clip, paddle.nn.clip.GradientClipBase):
            raise TypeError(f"{family.title}: grad_clip takes one of paddle.nn.ClipGradBy..., not {clip!r}")
        for name in options:
            if name not in family.options:
                raise TypeError(f"{family.title} takes no {name!r}; it takes {', '.join(family.options)}")
        preset, hyperparameters = family.recipe_of(options)
        form, regularizer = _decay_of(weight_decay)
        _check_height(family.title, form, is_scheduled)
        couples = _is_coupled(form, preset) or regularizer is not None
        made: dict[Any, Rated] = {}
        members: list[Member] = []
        for p in params:
            attributes = getattr(p, "optimize_attr", None) or {}
            factor = _factor(family.title, p, attributes.get("learning_rate", 1.0) if own_rate is None else own_rate)
            if lr_ratio is not None:
                factor *= _factor(family.title, p, lr_ratio(p))
            own = getattr(p, "regularizer", None)
            decays = (is_decayed is None or is_decayed(p.name)) and not (own is not None and couples)
            if (factor, decays) not in made:
                given = {"lr": lr * factor, "weight_decay": form if decays else 0.0}
                made[factor, decays] = Rated(recipe(preset, **given, **settings, **hyperparameters))
            members.append(Member(p, made[factor, decays], factor, own or (regularizer if decays else None)))
        found.append(members)
    return found


def _decay_of(given: Any) -> tuple[Any, WeightDecayRegularizer | None]:
    """A weight decay as a number or one of our forms, and what is left to a regularizer of Paddle's."""
    if given is None:
        return 0.0, None
    if isinstance(given, L2Decay):
        return decay.l2(given._coeff), None
    if isinstance(given, WeightDecayRegularizer):
        return 0.0, given
    return (float(given) if isinstance(given, paddle.Tensor) else given), None


def _is_coupled(form: Any, preset: Preset) -> bool:
    return (form.transform.name if isinstance(form, Applied) else preset.decay_form) == "l2"


def _check_height(owner: str, form: Any, is_scheduled: bool) -> None:
    if is_scheduled and isinstance(form, Applied) and form.values.get("lr_max", 1.0) is None:
        raise ValueError(
            f"{owner}: {form!r} needs the height of the schedule: onepass.decay.independent(x, lr_max=...)"
        )


def _factor(owner: str, p: Any, factor: Any) -> float:
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 <= factor < float("inf"):
        raise ValueError(
            f"{owner}: the learning rate of {p.name} is {factor!r} times the optimizer's; the factor is a number >= 0"
        )
    return float(factor)
