"""Every rule as an optax `GradientTransformation`: a factory for each name of `onepass.functional.list_rules`.

    tx = adamw(optax.cosine_decay_schedule(3e-4, 10_000), weight_decay=0.1)
    state = tx.init(params)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)

The step count and whatever else may be traced is computed with in float64, with or without ``jax_enable_x64``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import keystr, tree_flatten_with_path

from onepass.compiler import Stage, equations
from onepass.functional.core import TYPES, advance, initial_states
from onepass.functional.jax import library
from onepass.functional.recipe import PRESETS, Recipe, list_rules, recipe
from onepass.lang import Applied, Rule
from onepass.transforms import decay

_JAX = library("jax")


class OnepassState(NamedTuple):
    """What a transformation keeps between steps: arrays alone, whatever tree they are kept in.

    Attributes:
        count: how many steps have been taken.
        states: for each state's checkpoint key, such as ``exp_avg``, a tree like the parameters'. Where a state is one
            number for each parameter, the tree holds arrays without dimensions.
        reports: what transforms say of the last step, as ``last_grad_norm``; zero before the first.
    """

    count: jax.Array
    states: dict[str, Any]
    reports: dict[str, jax.Array]


class _Transformation:
    """A recipe, and the hyperparameters that it does not know: those that are traced, and schedules."""

    def __init__(self, recipe: Recipe, open_values: Mapping[str, Any]):
        self.recipe, self.open, self.program = recipe, open_values, recipe.program

    def values(self, count: Any) -> dict[str, Any]:
        now = {name: value(count) if callable(value) else value for name, value in self.open.items()}
        return self.recipe.changed(now, _JAX.is_traced)

    def init(self, params: Any) -> OnepassState:
        found, tree = tree_flatten_with_path(params)
        named = [(f"params{keystr(path)}", jnp.asarray(p)) for path, p in found]
        count = jnp.zeros([], jnp.int32)
        states = initial_states(self.program, self.values(count), named, _JAX)
        working = _working(named[0][1]) if named else "float32"
        for state, (_, p) in zip(states, named, strict=True):
            state.update((key, jnp.asarray(state[key], _working(p))) for key in self.program.scalars)
        trees = {key: tree.unflatten([state[key] for state in states]) for key in self.program.initial}
        return OnepassState(count, trees, {name: jnp.zeros([], working) for name in self.program.reports})

    def update(self, updates: Any, state: OnepassState, params: Any = None, **_: Any) -> tuple[Any, OnepassState]:
        if params is None:
            raise ValueError(f"{self.recipe.name} steps from the parameters: call update(grads, state, params)")
        found, tree = tree_flatten_with_path(params)
        places, old = [keystr(path) for path, _ in found], [jnp.asarray(p) for _, p in found]
        grads = self.gradients(tree, updates, places, old)
        rows = {key: _matched(tree, value, f"state.states[{key!r}]") for key, value in state.states.items()}
        if set(rows) != set(self.program.initial):
            raise ValueError(
                f"the state holds {', '.join(rows) or 'nothing'}, and {self.recipe.name} keeps "
                f"{', '.join(self.program.initial) or 'nothing'}: it was made by another transformation"
            )
        before = [{key: rows[key][i] for key in rows} for i in range(len(old))]
        if not old:
            return updates, state._replace(count=optax.safe_increment(state.count))
        new, after, reports = advance(self.program, self.values(state.count), state.count + 1, old, grads, before, _JAX)
        for each, mine in zip(after, before, strict=True):
            each.update((key, jnp.asarray(each[key], mine[key].dtype)) for key in self.program.scalars)
        return (
            tree.unflatten([_difference(*each) for each in zip(new, old, grads, strict=True)]),
            OnepassState(
                optax.safe_increment(state.count),
                {key: tree.unflatten([each[key] for each in after]) for key in rows},
                {name: jnp.asarray(value, state.reports[name].dtype) for name, value in reports.items()},
            ),
        )

    def gradients(self, tree: Any, updates: Any, places: Sequence[str], params: Sequence[jax.Array]) -> list[jax.Array]:
        found = _matched(tree, updates, "updates")
        for place, g, p in zip(places, found, params, strict=True):
            if g is None:
                raise ValueError(
                    f"updates{place} is missing (None): every parameter needs a gradient; "
                    "leave one that is not trained out with optax.masked or optax.partition"
                )
            if jnp.shape(g) != p.shape:
                raise ValueError(f"updates{place} has the shape {jnp.shape(g)}, and params{place} {p.shape}")
            if _JAX.dtype(jnp.asarray(g)) not in TYPES:
                kind = _JAX.dtype(jnp.asarray(g))
                raise TypeError(f"updates{place} is of type {kind}; a gradient is of {', '.join(TYPES)}")
        return [jnp.asarray(g) for g in found]


def _working(p: jax.Array) -> str:
    return "float64" if p.dtype == jnp.float64 else "float32"


def _matched(tree: Any, other: Any, what: str) -> list[Any]:
    try:
        return tree.flatten_up_to(other)
    except ValueError as error:
        raise ValueError(f"{what} is not of the parameters' form: {error}") from None


def _difference(new: jax.Array, old: jax.Array, g: jax.Array) -> jax.Array:
    dtype = jnp.promote_types(old.dtype, g.dtype)
    return new.astype(dtype) - old.astype(dtype)


def _open(value: Any) -> bool:
    """Whether a hyperparameter's value is settled at each step alone: an array of JAX's, or a schedule."""
    if isinstance(value, (tuple, list)):
        return any(map(_open, value))
    return isinstance(value, jax.Array) or (callable(value) and not isinstance(value, Applied))


def _transformation(rule: str | Rule, name: str, given: dict[str, Any]) -> optax.GradientTransformationExtraArgs:
    given["lr"] = given.pop("learning_rate")
    for key, value in given.items():
        if hasattr(value, "landmarks"):
            raise TypeError(
                f"{name}: {key}={value!r} is computed on the host, which a step under jit cannot ask: "
                "give a schedule of optax's, or any function of the traced step count"
            )
    opened = {key: value for key, value in given.items() if key != "transforms" and _open(value)}
    form = given["weight_decay"]
    if "lr" in opened and isinstance(form, Applied) and form.values.get("lr_max", 0.0) is None:
        raise ValueError(
            f"{name}: independent decay must know the height of a learning rate that is a schedule or traced: "
            f"weight_decay=decay.independent({form.values['weight_decay']!r}, lr_max=...)"
        )
    # What is not known yet has its default in the recipe; and a decay that may come to be anything is one.
    known = {key: value for key, value in given.items() if key not in opened}
    if "weight_decay" in opened:
        known["weight_decay"] = 1.0
    made = _Transformation(recipe(rule, **known), opened)
    return optax.GradientTransformationExtraArgs(made.init, made.update)


def optimizer(rule: str | Rule) -> Callable[..., optax.GradientTransformationExtraArgs]:
    """The factory of a rule: ``adamw`` is ``optimizer("adamw")``, and a rule of one's own has one too.

    Args:
        rule: a name of `onepass.functional.list_rules`, or what `onepass.rule` made.

    Returns:
        A function of ``learning_rate``, the rule's hyperparameters, ``weight_decay``, ``transforms`` and ``maximize``
        that returns an `optax.GradientTransformationExtraArgs`. Its documentation says more.

    Raises:
        TypeError: ``rule`` is neither.
        ValueError: there is no rule of that name.

    Example:
        >>> import onepass, onepass.jax
        >>> from onepass import ema, sign
        >>> @onepass.rule(lr=1e-4)
        ... def signum(g, m, *, momentum=0.9):
        ...     m = ema(m, g, momentum)
        ...     return sign(m), m
        >>> tx = onepass.jax.optimizer(signum)(momentum=0.95, weight_decay=0.1)
    """
    first = recipe(rule)
    defaults = dict(first.items)
    positional = inspect.Parameter("learning_rate", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=defaults.pop("lr"))
    maximize = defaults.pop("maximize")
    defaults |= {"weight_decay": defaults.pop("weight_decay"), "transforms": (), "maximize": maximize}
    keyword = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=x) for key, x in defaults.items()]
    signature = inspect.Signature([positional, *keyword], return_annotation=optax.GradientTransformationExtraArgs)

    def factory(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{first.name}: {error}; it takes {', '.join(signature.parameters)}") from None
        bound.apply_defaults()
        return _transformation(rule, first.name, dict(bound.arguments))

    factory.__name__ = factory.__qualname__ = first.name
    factory.__doc__ = _documentation(first)
    factory.__signature__ = signature  # type: ignore[attr-defined]
    return factory


def _documentation(given: Recipe) -> str:
    """The docstring of a factory, from its rule."""
    rule, items = given.rule, dict(given.items)
    forms = {"l2": "L2, which the rule sees as a gradient", "decoupled": "decoupled, beside the step"}
    ranges = dict(rule.ranges)
    for own in given.built_in:
        ranges.update(own.transform.ranges)
    hyperparameters = "\n".join(
        f"    {key}: {'both ' if isinstance(items[key], tuple) else ''}in {ranges[key]}.".replace("in an", "an")
        if key in ranges
        else f"    {key}: any number."
        for key in items
        if key not in ("lr", "weight_decay", "maximize")
    )
    if "weight_decay" in rule.hyperparameters:
        form, meaning = (), "the rule's own."
    else:
        form = (Stage(decay.FORMS[given.decay_form]),)
        meaning = f"a number >= 0, {forms[given.decay_form]}; or a form of `onepass.decay`."
    written = equations(rule, (*(Stage(each.transform) for each in given.built_in), *form))
    body = inspect.getdoc(rule.function) or rule.name
    return f"""{body}

{_indented(written)}

Args:
    learning_rate: a number >= 0, an array, traced or not, or a schedule: a function of the count of the steps taken
        so far. The same goes for every hyperparameter.
{hyperparameters}
    weight_decay: {meaning}
    transforms: such as ``[onepass.clip_norm(1.0)]``.
    maximize: climb instead of descending.

Returns:
    A transformation that needs the parameters: ``update(grads, state, params)``. Its updates, added to them, make what
    `onepass.functional.update` makes, but for the rounding of the update and of the sum. Updates are of the wider type
    of gradient and parameter; bfloat16 parameters lose what is below their last place at every step, so that a small
    learning rate asks for float32 parameters, and a cast in the model.

Raises:
    TypeError: a hyperparameter is no number, or unknown.
    ValueError: one is out of range; a traced one cannot be checked.

Example:
    >>> import jax.numpy as jnp, optax, onepass.jax
    >>> params = {{"w": jnp.ones(3)}}
    >>> tx = onepass.jax.{given.name}(1e-2)
    >>> state = tx.init(params)
    >>> updates, state = tx.update({{"w": jnp.ones(3)}}, state, params)
    >>> params = optax.apply_updates(params, updates)
""" + (f"\nReferences:\n    {rule.paper}\n" if rule.paper else "")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


for _name in list_rules():
    globals()[_name] = optimizer(_name)

__all__ = ["OnepassState", "optimizer", *PRESETS]  # pyright: ignore[reportUnsupportedDunderAll]
