"""Paddle's own form of every optimizer: ``onepass.paddle.AdamW(learning_rate=..., parameters=...)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import paddle
from paddle.optimizer.lr import LRScheduler

from onepass.functional.families import FAMILIES, Family, family_of
from onepass.functional.paddle_groups import Member, members_of, named
from onepass.functional.paddle_states import load, names_of, saved
from onepass.functional.paddle_step import Stepper
from onepass.lang import Applied, Rule

Pairs = list[tuple[Any, Any]]


class Optimizer(paddle.optimizer.Optimizer):
    """A rule as one of Paddle's optimizers, in dynamic mode; its subclasses are the optimizers by name.

    Paddle's tools find what they look for: ``step``, ``minimize``, ``clear_grad``, ``get_lr``, ``set_lr``,
    ``set_lr_scheduler``, ``state_dict``, ``set_state_dict``; `paddle.Model`, `paddle.amp.GradScaler` and
    `paddle.amp.decorate`. On the CPU one fused kernel for all parameters takes the step, in place; elsewhere, and
    without Numba, Paddle's own operations do, and one warning says so.

    Args:
        learning_rate: a float >= 0, or one of `paddle.optimizer.lr`.
        parameters: tensors, or dicts of groups with ``params`` and what differs from the rest: ``learning_rate`` (as in
            Paddle a factor of the optimizer's), ``weight_decay``, ``grad_clip`` and the rule's hyperparameters.
        weight_decay: a number >= 0 in the form that the class has in torch (decoupled for AdamW, Yogi and Ranger, L2
            for the others); a form of `onepass.decay`; or one of `paddle.regularizer`, which is added to the gradient
            before the step. A regularizer of a parameter's own (`paddle.ParamAttr`) takes the place of L2 decay, and
            acts beside the other forms.
        grad_clip: one of ``paddle.nn.ClipGradBy...``; as in Paddle it sees one group at a time.
            ``transforms=[onepass.clip_norm(1.0)]`` sees all groups.
        name: put into the keys of the state dict.
        multi_precision: give float16 and bfloat16 parameters float32 master weights; `paddle.amp.decorate` sets it.
            Without it their states are kept as they are stored, and every step is computed in float32 all the same.
        apply_decay_param_fun: takes a parameter's name; False means no ``weight_decay`` for it.
        lr_ratio: takes a parameter, and returns a factor >= 0 for its learning rate.
        transforms: such as ``[onepass.clip_norm(1.0), onepass.lookahead()]``.
        maximize: climb instead of descending.
        **hyperparameters: the rule's, under torch's names: ``betas``, ``eps``, ``momentum``.

    Attributes:
        reports: what transforms say of the last step, as ``last_grad_norm``.

    Sparse gradients (``Embedding(sparse=True)``) are made dense: every row takes part in every step, as in Paddle's
    optimizers without ``lazy_mode``.

    Raises:
        TypeError: a hyperparameter is unknown or no number, or a parameter no tensor of floating-point numbers.
        ValueError: a value is out of range, or a parameter is given twice.
        RuntimeError: in static mode, or for tensors that are spread over processes.

    Example:
        >>> import paddle, onepass.paddle
        >>> model = paddle.nn.Linear(3, 1)
        >>> opt = onepass.paddle.AdamW(learning_rate=0.1, parameters=model.parameters(), weight_decay=0.01)
        >>> model(paddle.ones([2, 3])).mean().backward()
        >>> opt.step()
        >>> opt.clear_grad()
    """

    family: ClassVar[Family]

    def __init__(
        self,
        learning_rate: float | LRScheduler,
        parameters: Any,
        weight_decay: Any = None,
        grad_clip: Any = None,
        name: str | None = None,
        *,
        multi_precision: bool = False,
        apply_decay_param_fun: Callable[[str], bool] | None = None,
        lr_ratio: Callable[[Any], float] | None = None,
        transforms: Sequence[Applied] = (),
        maximize: bool = False,
        **hyperparameters: Any,
    ):
        owner = self.family.title
        if not paddle.in_dynamic_mode():
            raise RuntimeError(f"{owner} works in dynamic mode: call paddle.disable_static() before it is made")
        if isinstance(learning_rate, int) and not isinstance(learning_rate, bool):
            learning_rate = float(learning_rate)
        self._multi_precision = multi_precision
        self._options = {"weight_decay": weight_decay, "grad_clip": grad_clip, **hyperparameters}
        self._stepper = Stepper()
        self.reports: Mapping[str, float] = MappingProxyType({})
        super().__init__(learning_rate, named(owner, parameters), None, grad_clip, name)
        rate = learning_rate() if isinstance(learning_rate, LRScheduler) else learning_rate
        settings = {"transforms": tuple(transforms), "maximize": maximize}
        self._members: list[list[Member]] = members_of(
            self.family, self._groups(), rate, isinstance(learning_rate, LRScheduler), settings,
            apply_decay_param_fun, lr_ratio,
        )  # fmt: skip

    def _groups(self) -> list[dict[str, Any]]:
        """The groups, each with all its options; parameters given without groups are one."""
        groups = self._param_groups
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        return [{**self._options, **group} for group in groups]

    def _add_param_group(self, param_group: dict[str, Any]) -> None:
        # Paddle's method would write the group's options into its parameters.
        self._param_groups.append(param_group)

    # The step

    @paddle.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient, once."""
        self._check_mode()
        self._advance([[(m.p, _gradient(m.p)) for m in members] for members in self._members])

    @paddle.no_grad()
    def minimize(
        self, loss: Any, startup_program: Any = None, parameters: Any = None, no_grad_set: Any = None
    ) -> tuple[list[Any], Pairs]:
        """As `step`, after ``loss.backward()``, which is the caller's in dynamic mode.

        Args:
            loss: what was differentiated; its gradients are taken as they are.
            startup_program: of static mode; None here.
            parameters: those to update, tensors or their names; None means all.
            no_grad_set: those to leave out, tensors or their names.

        Returns:
            An empty list, static mode's operators, and pairs of parameter and gradient.
        """
        if startup_program is not None:
            raise ValueError("minimize: startup_program belongs to static mode; leave it out")
        self._check_mode()
        chosen = None if parameters is None else {_name(x) for x in parameters}
        left_out = {_name(x) for x in no_grad_set or ()}
        pairs = [
            [(m.p, _gradient(m.p)) for m in members if (not chosen or m.p.name in chosen) and m.p.name not in left_out]
            for members in self._members
        ]
        self._advance(pairs)
        return [], [pair for group in pairs for pair in group if pair[1] is not None]

    @paddle.no_grad()
    def apply_gradients(self, params_grads: Pairs) -> list[Any]:
        """Take the step with these gradients, pairs of parameter and gradient."""
        self._check_mode()
        given = {id(p): g for p, g in params_grads}
        known = {id(m.p) for members in self._members for m in members}
        for p, _ in params_grads:
            if id(p) not in known:
                raise ValueError(f"apply_gradients: the parameter {p.name} is not one of this optimizer's")
        self._advance([[(m.p, given.get(id(m.p))) for m in members] for members in self._members])
        return []

    def _apply_optimize(self, loss: Any, startup_program: Any, params_grads: Any, param_group_idx: int = 0) -> Any:
        # The door by which Paddle's own wrappers enter.
        pairs = params_grads["params"] if isinstance(params_grads, dict) else params_grads
        return self.apply_gradients(pairs)

    def _check_mode(self) -> None:
        if not paddle.in_dynamic_mode() or paddle.base.dygraph.base.in_to_static_mode():
            raise RuntimeError(f"{self.family.title} works in dynamic mode: leave step() out of paddle.jit.to_static")

    def _advance(self, groups: list[Pairs]) -> None:
        found = self._get_auxiliary_var("found_inf")
        if isinstance(found, paddle.Tensor):
            # What a GradScaler found; it reads the answer from the same place, and counts the step as skipped.
            found = bool(found)
            self._set_auxiliary_var("found_inf", found)
            if found:
                return
        ready = [[(p, _dense(p, g)) for p, g in pairs if g is not None and not p.stop_gradient] for pairs in groups]
        ready = [self._clipped(i, pairs) for i, pairs in enumerate(ready)]
        grads = {id(p): g for pairs in ready for p, g in pairs}
        lr = self.get_lr()
        taking_part = [m for members in self._members for m in members if id(m.p) in grads]
        for member in taking_part:
            member.prepare(grads[id(member.p)], lr, self._multi_precision)
        self.reports = self._stepper.take(taking_part) if taking_part else {}

    def _clipped(self, i: int, pairs: Pairs) -> Pairs:
        grouped = isinstance(self._param_groups[0], dict)
        clip = self._param_groups[i].get("grad_clip", self._grad_clip) if grouped else self._grad_clip
        return clip(pairs) if clip is not None and pairs else pairs

    def _append_optimize_op(self, block: Any, param_and_grad: Any) -> Any:
        raise RuntimeError(f"{self.family.title} works in dynamic mode: call paddle.disable_static() before it is made")

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What `paddle.save` keeps: for each parameter that was stepped ``NAME_KEY_0`` for each state and the step
        count, ``master_weights``, and ``LR_Scheduler``. The hyperparameters are the constructor's, as in Paddle."""
        return saved(self._all(), self._name, self._learning_rate)

    def set_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave, in the optimizer that gave it or a fresh one.

        Raises:
            ValueError: a state is missing, unknown or of another shape. Nothing is changed then.
        """
        load(self._all(), self._name, self._learning_rate, self._multi_precision, state_dict)

    load_state_dict = set_state_dict

    def get_opti_var_name_list(self) -> list[str]:
        """The keys of the states there are."""
        return names_of(self._all(), self._name)

    def _all(self) -> list[Member]:
        return [member for members in self._members for member in members]


def _name(x: Any) -> str:
    return x if isinstance(x, str) else x.name


def _gradient(p: Any) -> Any:
    main = getattr(p, "main_grad", None)
    return p.grad if main is None else main


def _dense(p: Any, g: Any) -> Any:
    """The gradient, with the rows of a sparse one added up in a tensor of the parameter's shape."""
    if not g.is_selected_rows():
        return g
    rows = paddle.to_tensor(g.rows(), place=g.place)
    values = g._get_tensor_from_selected_rows()
    return paddle.index_add(paddle.zeros(p.shape, dtype=values.dtype), rows, 0, values)


# The classes


def _class(family: Family, module: str = "onepass.paddle") -> type[Optimizer]:
    """The class of a family, whose signature names all that it takes."""
    decays = family.weight_decay or None

    def __init__(
        self: Any,
        learning_rate: float | LRScheduler = family.lr,
        parameters: Any = None,
        weight_decay: Any = decays,
        grad_clip: Any = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        Optimizer.__init__(self, learning_rate, parameters, weight_decay, grad_clip, name, **options)

    own = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=x) for key, x in family.options.items()]
    common = [
        x for x in inspect.signature(Optimizer.__init__).parameters.values() if x.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    first = list(inspect.signature(__init__).parameters.values())[:-1]
    __init__.__signature__ = inspect.Signature([*first, *own, *common])  # pyright: ignore[reportFunctionMemberAccess]
    paper = f"\n\nSource: {family.preset.rule.paper}." if family.preset.rule.paper else ""
    says = f"{family.says}{paper}\n\nThe arguments are those of `onepass.paddle.Optimizer`."
    return type(family.title, (Optimizer,), {
        "__init__": __init__, "__doc__": says, "__module__": module, "family": family,
    })  # fmt: skip


CLASSES = {title: _class(family) for title, family in FAMILIES.items()}


def optimizer(rule: Rule) -> type[Optimizer]:
    """A class of Paddle's for a rule of one's own; plain weight decay is decoupled.

    Args:
        rule: what `onepass.rule` made.

    Raises:
        TypeError: it is no rule.

    Example:
        >>> import paddle, onepass, onepass.paddle
        >>> @onepass.rule
        ... def signum(g, m, *, momentum=0.9):
        ...     m = onepass.ema(m, g, momentum)
        ...     return onepass.sign(m), m
        >>> Signum = onepass.paddle.optimizer(signum)
        >>> opt = Signum(learning_rate=0.1, parameters=paddle.nn.Linear(3, 1).parameters(), momentum=0.8)
    """
    if not isinstance(rule, Rule):
        raise TypeError(f"onepass.paddle.optimizer takes what @onepass.rule makes, not {rule!r}")
    title = "".join(part.capitalize() for part in rule.name.split("_"))
    return _class(family_of(rule, title), rule.function.__module__)
