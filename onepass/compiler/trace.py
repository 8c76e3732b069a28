"""From a rule and its transforms to one graph: what a step makes of a parameter and of its states."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from onepass.lang.declare import Declaration, Rule, State, Transform
from onepass.lang.expr import Expr, Level, constant, symbol

G, P = symbol("g", Level.ELEMENT), symbol("p", Level.ELEMENT)
T, LR, NDIM = symbol("t", Level.STEP), symbol("lr", Level.STEP), symbol("ndim", Level.STEP)


class Stage(NamedTuple):
    """A transform in its place, with what its hyperparameters' names begin with outside of it."""

    transform: Transform
    prefix: str = ""


@dataclass(frozen=True)
class Trace:
    """The graph of a step, as written: nothing is simplified yet.

    Attributes:
        parameter: the parameter after the step.
        states: for each state's checkpoint key, its value after the step.
        initial: for each state's key, its value before the first step.
        scalars: the keys of the states that are one number for each parameter.
        precise: the keys of the states that are kept in float32 at the least.
        reports: the values that transforms offer after a step.
        names: for an expression that a rule gave a name, that name; empty unless asked for.
    """

    parameter: Expr
    states: Mapping[str, Expr]
    initial: Mapping[str, Expr]
    scalars: frozenset[str]
    precise: frozenset[str]
    reports: Mapping[str, Expr]
    names: Mapping[Expr, str]


def state_symbol(state: State) -> Expr:
    """The symbol of a state's value before the step."""
    return symbol(f"state.{state.key}", Level.STEP if state.is_scalar else Level.ELEMENT)


def hyperparameter_symbols(name: str, default: Any) -> Any:
    """The symbol of a hyperparameter, or a tuple of symbols where its default is a tuple."""
    if isinstance(default, tuple):
        count = len(default)  # pyright: ignore[reportUnknownArgumentType]
        return tuple(symbol(f"{name}[{i}]", Level.STEP) for i in range(count))
    return symbol(name, Level.STEP)


def trace(rule: Rule, stages: tuple[Stage, ...] = (), *, named: bool = False) -> Trace:
    """Run a rule and its transforms on symbols.

    Args:
        rule: the rule.
        stages: its transforms. Those of the gradient, the direction, the parameter before and after the step apply in
            that order, and in the given order among themselves.
        named: also record the names of the local variables of each function, for printing.

    Raises:
        TypeError: a function returns something else than its signature declares.
        ValueError: two of them keep a state under the same checkpoint key.
    """
    tracer = _Tracer(named)
    g: Expr = G
    for stage in stages:
        if stage.transform.subject == "g":
            g = tracer.run(stage.transform, stage.prefix, {"g": g})
    u = tracer.run(rule, "", {"g": g})
    for stage in stages:
        if stage.transform.subject == "u":
            u = tracer.run(stage.transform, stage.prefix, {"g": g, "u": u})
    p: Expr = P
    for stage in stages:
        if stage.transform.subject == "p":
            p = tracer.run(stage.transform, stage.prefix, {"g": g, "u": u, "p": p})
    p_next = p - (u if rule.returns_step else LR * u)
    for stage in stages:
        if stage.transform.subject == "p_next":
            p_next = tracer.run(stage.transform, stage.prefix, {"g": g, "p_next": p_next})
    scalars, precise = frozenset(tracer.scalars), frozenset(tracer.precise)
    return Trace(p_next, tracer.states, tracer.initial, scalars, precise, tracer.reports, tracer.names)


class _Tracer:
    def __init__(self, named: bool):
        self.named = named
        self.states: dict[str, Expr] = {}
        self.initial: dict[str, Expr] = {}
        self.scalars: set[str] = set()
        self.precise: set[str] = set()
        self.reports: dict[str, Expr] = {}
        self.names: dict[Expr, str] = {}
        self.owners: dict[str, str] = {}

    def run(self, declaration: Declaration, prefix: str, subjects: Mapping[str, Expr]) -> Expr:
        """The first result of the function; the others, its states, are kept."""
        hyperparameters = {
            name: hyperparameter_symbols(prefix + name, default)
            for name, default in declaration.hyperparameters.items()
        }
        known = {"g": G, "p": P, "t": T, "lr": LR, "ndim": NDIM, **subjects}
        known.update((state.name, state_symbol(state)) for state in declaration.states)
        if isinstance(declaration, Transform):
            for name, report in declaration.reports.items():
                self.reports[name] = report(known[declaration.subject])
        result, variables = _call(
            declaration, [known[name] for name in declaration.inputs], hyperparameters, self.named
        )
        for name, value in variables.items():
            if isinstance(value, Expr) and value.args:
                self.names.setdefault(value, name)
        for state, value in zip(declaration.states, result[1:], strict=True):
            if state.key in self.owners:
                raise ValueError(
                    f"{self.owners[state.key]} and {declaration.name} both keep a state under the key {state.key!r}: "
                    "give one of them another with state={...}"
                )
            if state.is_scalar and value.level != Level.STEP:
                raise TypeError(
                    f"{declaration.name}: the state {state.name!r} is one number for each parameter "
                    "(init=scalar(...)), but its new value depends on tensors"
                )
            self.owners[state.key] = declaration.name
            self.states[state.key] = value
            self.initial[state.key] = _initial(declaration, state, hyperparameters)
            if state.is_scalar:
                self.scalars.add(state.key)
            if state.is_precise:
                self.precise.add(state.key)
        return result[0]


def _initial(declaration: Declaration, state: State, hyperparameters: Mapping[str, Any]) -> Expr:
    if not callable(state.init):
        return constant(state.init)
    known = {"p": P, "ndim": NDIM, **hyperparameters}
    names = inspect.signature(state.init).parameters
    unknown = [name for name in names if name not in known]
    if unknown:
        raise TypeError(
            f"{declaration.name}: the initial value of {state.name!r} can depend on {', '.join(known)}, "
            f"not {unknown[0]!r}"
        )
    return _expression(declaration, state.init(**{name: known[name] for name in names}))


def _expression(declaration: Declaration, value: Any) -> Expr:
    if isinstance(value, (int, float)):
        return constant(value)
    if not isinstance(value, Expr):
        raise TypeError(f"{declaration.name} must return expressions of its arguments, and returned {value!r}")
    return value


def _call(
    declaration: Declaration, args: list[Expr], hyperparameters: Mapping[str, Any], named: bool
) -> tuple[list[Expr], dict[str, Any]]:
    """Call the function on symbols; with ``named``, also return its local variables as they were at its end."""
    function: Callable[..., Any] = declaration.function
    variables: dict[str, Any] = {}

    def at_return(frame: Any, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is getattr(function, "__code__", None):
            variables.update(frame.f_locals)

    before = sys.getprofile()
    if named:
        sys.setprofile(at_return)
    try:
        result: Any = function(*args, **hyperparameters)
    finally:
        if named:
            sys.setprofile(before)
    results: list[Any] = list(result) if isinstance(result, tuple) else [result]  # pyright: ignore[reportUnknownArgumentType]
    if len(results) != 1 + len(declaration.states):
        first = (
            "the step" if declaration.inputs[:1] == ("g",) or isinstance(declaration, Rule) else declaration.inputs[0]
        )
        expected = ", ".join([first, *(state.name for state in declaration.states)])
        raise TypeError(
            f"{declaration.name} returned {len(results)} value{'s' * (len(results) != 1)}; its signature declares "
            f"{1 + len(declaration.states)}: {expected}"
        )
    return [_expression(declaration, value) for value in results], variables
