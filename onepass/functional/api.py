"""``init`` and ``update``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onepass.functional import trees
from onepass.functional.core import TYPES, advance, initial_states
from onepass.functional.library import library_of
from onepass.functional.recipe import Recipe, recipe
from onepass.lang import Applied, Rule


@dataclass(frozen=True)
class State:
    """What `update` needs to know of the steps before.

    Attributes:
        recipe: the rule with its transforms and hyperparameters.
        step: how many steps have been taken.
        tensors: for each state's checkpoint key, a tree like the parameters'. Where a state is one number for each
            parameter, the tree holds numbers.
        reports: what transforms say of the last step, as ``last_grad_norm``; zero before the first.
    """

    recipe: Recipe
    step: Any
    tensors: Mapping[str, Any]
    reports: Mapping[str, Any]


def init(
    params: Any,
    rule: str | Rule,
    *,
    lr: float | None = None,
    weight_decay: Any = None,
    transforms: Sequence[Applied] = (),
    maximize: bool = False,
    **hyperparameters: Any,
) -> State:
    """The state before the first step.

    Args:
        params: nested dicts, lists and tuples of floating-point arrays of one library. None stands for no parameter.
        rule: a name of `list_rules`, or what `onepass.rule` made.
        lr: learning rate >= 0; None leaves the rule's default.
        weight_decay: a number >= 0, which means L2 as in torch, and is decoupled for ``adamw``, ``yogi``, ``ranger``
            and rules of one's own; or a form of `onepass.decay`. Independent decay's ``lr_max`` is ``lr`` by default.
        transforms: such as ``[onepass.clip_norm(1.0)]``.
        maximize: climb instead of descending.
        **hyperparameters: the rule's, under torch's names.

    Raises:
        TypeError: ``params`` holds something else than floating-point arrays of one library, or there is no such
            hyperparameter.
        ValueError: there is no rule of that name, or a hyperparameter is out of range.

    Example:
        >>> import numpy as np
        >>> from onepass.functional import init, update
        >>> params = {"w": np.ones(3)}
        >>> state = init(params, "adam", lr=0.1)
        >>> params, state = update(params, {"w": np.array([1.0, -1.0, 0.0])}, state)
        >>> params["w"].round(3)
        array([0.9, 1.1, 1. ])
    """
    made = recipe(rule, lr=lr, weight_decay=weight_decay, transforms=transforms, maximize=maximize, **hyperparameters)
    found = [(f"params{path}", p) for path, p in trees.leaves(params)]
    library = library_of(found)
    program = made.program
    states = initial_states(program, made.host_values, found, library)
    return State(made, 0, _by_key(program.initial, params, states), dict.fromkeys(program.reports, 0.0))


def update(params: Any, grads: Any, state: State, **changes: Any) -> tuple[Any, State]:
    """One step.

    Args:
        params: as `init` was given, or as the last step returned.
        grads: a tree of the same form: the gradients, of the parameters' shapes.
        state: what `init` or the last step returned.
        **changes: hyperparameters for this step alone, such as ``lr=schedule(step)``.

    Returns:
        The new parameters and the new state. Neither argument is changed.

    Raises:
        TypeError: the arrays come from different libraries, or there is no such hyperparameter.
        ValueError: the trees differ in form, a gradient is missing or of another shape, or a value is out of range.
    """
    if not isinstance(state, State):
        raise TypeError(f"update takes the state that init returned, not {state!r}")
    rows = list(trees.matched(params, grads, "grads"))
    library = library_of([item for path, p, g in rows for item in ((f"params{path}", p), (f"grads{path}", g))])
    for path, p, g in rows:
        _check_shape(f"grads{path}", g, f"params{path}", p)
        for where, x in ((f"params{path}", p), (f"grads{path}", g)):
            if library.dtype(x) not in TYPES:
                raise TypeError(f"{where} is of type {library.dtype(x)}; it must be of {', '.join(TYPES)}")
    program = state.recipe.program
    states: list[dict[str, Any]] = [{} for _ in rows]
    for key in program.initial:
        what = f"state.tensors[{key!r}]"
        for mine, (path, p, value) in zip(states, trees.matched(params, state.tensors[key], what), strict=True):
            if key not in program.scalars:
                _check_shape(f"{what}{path}", value, f"params{path}", p)
            mine[key] = value
    values = state.recipe.changed(changes, library.is_traced)
    t = state.step + 1
    new, new_states, reports = advance(
        program, values, t, [p for _, p, _ in rows], [g for _, _, g in rows], states, library
    )
    after = State(state.recipe, t, _by_key(program.initial, params, new_states), reports)
    return trees.rebuilt(params, iter(new)), after


def _check_shape(what: str, x: Any, where: str, p: Any) -> None:
    shape = tuple(getattr(x, "shape", ()))
    if shape != tuple(p.shape):
        raise ValueError(f"{what} has the shape {shape}, and {where} {tuple(p.shape)}")


def _by_key(keys: Any, params: Any, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: trees.rebuilt(params, iter([state[key] for state in states])) for key in keys}
