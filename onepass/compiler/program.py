"""The compiled form of a step: simplified, its step values hoisted, one variant for each step-level decision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

from onepass.compiler.arrays import OnArrays, compile_arrays
from onepass.compiler.host import compile_host
from onepass.compiler.interpret import on_arrays, on_host
from onepass.compiler.simplify import rebuild, simplify
from onepass.compiler.trace import P, Stage, trace
from onepass.lang.declare import Rule
from onepass.lang.expr import Expr, Level, symbol
from onepass.lang.ops import OPS


def walk(roots: Iterable[Expr], stop: frozenset[Expr] = frozenset()) -> Iterator[Expr]:
    """Every node below the roots once, arguments before what uses them; those in ``stop`` are not entered."""
    seen: set[Expr] = set()

    def visit(node: Expr) -> Iterator[Expr]:
        if node not in seen:
            seen.add(node)
            for arg in () if node in stop else node.args:
                yield from visit(arg)
            yield node

    for root in roots:
        yield from visit(root)


# A step in which a report of this name is not zero writes nothing.
GUARD = "nonfinite"


@dataclass(frozen=True, eq=False)
class Variant:
    """A program with every step-level decision made: what one launch computes.

    Attributes:
        parameter: the parameter after the step.
        states: for the key of each tensor state that this variant changes, its new value. A state that it leaves
            alone is not here, and one that it does not read either is never touched.
        row: the step values, to be computed on the host; the expressions above hold ``row[0]``, ... in their place.
        reductions: the reductions among them and in ``reports``, innermost first: each ends a phase.
        reads: the names of the symbols that are loaded for every element: ``p``, ``g``, ``state.KEY``.
        reports: what to offer after the step; reductions over the model, or made of them.
    """

    parameter: Expr
    states: Mapping[str, Expr]
    row: tuple[Expr, ...]
    reductions: tuple[Expr, ...]
    reads: frozenset[str]
    reports: Mapping[str, Expr]

    @cached_property
    def compute_row(self) -> Callable[[Mapping[str, Any]], tuple[float, ...]]:
        """The values of ``row`` from those of the host's symbols."""
        return compile_host(self.row)

    @cached_property
    def over_model(self) -> tuple[Expr, ...]:
        """The reductions over the model, innermost first."""
        return tuple(node for node in self.reductions if node.level == Level.MODEL)

    @cached_property
    def compute_summands(self) -> tuple[OnArrays, ...]:
        """For each of ``over_model``, from arrays and the values of those before it, what it adds up."""
        return tuple(compile_arrays(node.args, self.over_model[:i]) for i, node in enumerate(self.over_model))

    @cached_property
    def compute_results(self) -> OnArrays:
        """``parameter`` and the values of ``states``, in order, from arrays and the values of ``over_model``."""
        return compile_arrays([self.parameter, *self.states.values()], self.over_model)

    def traffic(self) -> int:
        """How many values must move between memory and processor for every element.

        Each phase loads what it needs once and the last one stores; a row is short enough to be in cache when the phase
        that follows its reduction reads it again.
        """
        before = [_elements(walk([node])) for node in self.reductions if node.level < Level.ROW]
        return sum(map(len, before)) + len(self.reads) + 1 + len(self.states)


def _elements(nodes: Iterable[Expr]) -> frozenset[str]:
    return frozenset(node.data for node in nodes if node.op == "symbol" and node.level == Level.ELEMENT)


class Situation(NamedTuple):
    """What a step is for all parameters that agree in their group, step count, dimensions and scalar states.

    Attributes:
        variant: what to compute.
        row: the values of ``variant.row``.
        after: the values of the program's scalar states after the step, in their order.
    """

    variant: Variant
    row: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """A rule with its transforms, compiled.

    Attributes:
        name: the rule's name.
        parameter: the parameter after the step, as one expression.
        states: for each tensor state's checkpoint key, its new value.
        scalars: for the key of each state that is one number for each parameter, its new value.
        initial: for each state's key, its value before the first step.
        hyperparameters: the names of the values that the host supplies besides ``t``, ``ndim`` and scalar states.
        precise: the keys of the states that are kept in float32 at the least.
        reports: what transforms offer after a step.
        decisions: the step-level conditions that choose between values of a higher level.
    """

    name: str
    parameter: Expr
    states: Mapping[str, Expr]
    scalars: Mapping[str, Expr]
    initial: Mapping[str, Expr]
    hyperparameters: tuple[str, ...]
    precise: frozenset[str]
    reports: Mapping[str, Expr]
    decisions: tuple[Expr, ...]
    _variants: dict[tuple[float | None, ...], Variant] = field(default_factory=dict[tuple[float | None, ...], Variant])

    def variant(self, values: Mapping[str, Any]) -> Variant:
        """The variant that these host values call for."""
        return self.variant_of(self._choose(values))

    def variant_of(self, choice: tuple[float | None, ...]) -> Variant:
        """The variant of a choice: for each of ``decisions``, whether it holds.

        None leaves a decision open: its condition is a step value then, by which each element chooses.
        """
        if choice not in self._variants:
            self._variants[choice] = self._decide(dict(zip(self.decisions, choice, strict=True)))
        return self._variants[choice]

    def situation(self, values: Mapping[str, float], t: float, ndim: int, scalars: Sequence[float]) -> Situation:
        """The step number ``t`` of parameters with ``ndim`` dimensions and these scalar states, on the host."""
        known = {**values, "t": t, "ndim": float(ndim)}
        for key, value in zip(self.scalars, scalars, strict=True):
            known[f"state.{key}"] = value
        variant = self.variant(known)
        return Situation(variant, variant.compute_row(known), self._settle(known))

    @cached_property
    def span(self) -> Level:
        """How much must be known before any of it can be stepped: the level of the widest reduction."""
        roots = [self.parameter, *self.states.values(), *self.reports.values()]
        reductions = (node for node in walk(roots) if node.op in OPS and OPS[node.op].kind == "reduction")
        return min((node.level for node in reductions), default=Level.ELEMENT)

    @property
    def is_elementwise(self) -> bool:
        """Whether no element's step depends on another's."""
        return self.span == Level.ELEMENT

    @cached_property
    def _choose(self) -> Callable[[Mapping[str, Any]], tuple[float, ...]]:
        return compile_host(self.decisions)

    @cached_property
    def _settle(self) -> Callable[[Mapping[str, Any]], tuple[float, ...]]:
        return compile_host(tuple(self.scalars.values()))

    def _decide(self, choices: Mapping[Expr, float | None]) -> Variant:
        def chosen(node: Expr) -> Expr | None:
            if _is_decision(node) and choices[node.args[0]] is not None:
                return rebuild(node.args[1 if choices[node.args[0]] else 2], chosen, decided)
            return None

        decided: dict[Expr, Expr] = {}
        simpler: dict[Expr, Expr] = {}
        parameter = simplify(rebuild(self.parameter, chosen, decided), simpler)
        states = {key: simplify(rebuild(new, chosen, decided), simpler) for key, new in self.states.items()}
        states = {key: new for key, new in states.items() if new is not symbol(f"state.{key}", Level.ELEMENT)}

        row: dict[Expr, Expr] = {}

        def hoisted(node: Expr) -> Expr | None:
            if node.level > Level.STEP or node.op == "constant":
                return None
            return row.setdefault(node, symbol(f"row[{len(row)}]", Level.STEP))

        hoists: dict[Expr, Expr] = {}
        parameter = rebuild(parameter, hoisted, hoists)
        states = {key: rebuild(new, hoisted, hoists) for key, new in states.items()}
        nodes = list(walk([parameter, *states.values()]))
        reports = {
            name: rebuild(simplify(rebuild(value, chosen, decided), simpler), hoisted, hoists)
            for name, value in self.reports.items()
        }
        everything = walk([*reports.values(), parameter, *states.values()])
        reductions = tuple(node for node in everything if node.op in OPS and OPS[node.op].kind == "reduction")
        return Variant(parameter, states, tuple(row), reductions, _elements(nodes), reports)


def _is_decision(node: Expr) -> bool:
    return node.op == "where" and node.args[0].level == Level.STEP and node.level > Level.STEP


@cache
def compile_rule(rule: Rule, stages: tuple[Stage, ...] = ()) -> Program:
    """Compile a rule with its transforms; the same call returns the same program.

    Raises:
        TypeError, ValueError: as `trace` does.
    """
    traced = trace(rule, stages)
    memo: dict[Expr, Expr] = {}
    parameter = simplify(traced.parameter, memo)
    new = {key: simplify(value, memo) for key, value in traced.states.items()}
    states = {key: value for key, value in new.items() if key not in traced.scalars}
    initial = {key: simplify(value, memo) for key, value in traced.initial.items()}
    reports = {name: simplify(value, memo) for name, value in traced.reports.items()}
    nodes = list(walk([parameter, *new.values(), *initial.values(), *reports.values()]))
    supplied = dict.fromkeys(node.data for node in nodes if node.op == "symbol" and node.level == Level.STEP)
    decisions = dict.fromkeys(node.args[0] for node in walk([parameter, *states.values()]) if _is_decision(node))
    return Program(
        name=rule.name,
        parameter=parameter,
        states=states,
        scalars={key: value for key, value in new.items() if key in traced.scalars},
        initial=initial,
        precise=traced.precise,
        reports=reports,
        hyperparameters=tuple(n for n in supplied if n not in ("t", "ndim") and not n.startswith("state.")),
        decisions=tuple(decisions),
    )


@dataclass(eq=False)
class Work:
    """What a parameter group asks of a backend in one step.

    Attributes:
        program: what to compute.
        values: the values of the program's hyperparameters.
        params: the group's parameters, those without a gradient among them.
        prepare: gives a parameter the states that it lacks, and returns them all.
        counts_on_device: whether step counts are to be kept on the parameters' device, so that the host need know
            neither them nor whether the step was skipped.
    """

    program: Program
    values: Mapping[str, float]
    params: Sequence[Any]
    prepare: Callable[[Any, Program, Mapping[str, float]], dict[str, Any]]
    counts_on_device: bool = False


def initial_value(program: Program, key: str, parameter: Any, values: Mapping[str, Any], xp: Any) -> Any:
    """A state's value before the first step: a float, or an array where it depends on the parameter."""
    expression = program.initial[key]
    if any(node is P for node in walk([expression])):
        return on_arrays(expression, {**values, "p": parameter}, {}, xp)
    return on_host(expression, values, {})
