"""A step of a list of arrays, without writing to any of them.

What a rule means is the program's; what an array is, the library's. Each array is computed on in float32 at the least
and stored as it came.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from onepass.compiler import Program, Situation, Variant, initial_value, on_arrays, walk
from onepass.functional.library import Library
from onepass.lang import OPS, Expr

Arrays = dict[str, Any]

TYPES = ("float16", "bfloat16", "float32", "float64")


def initial_states(
    program: Program, values: Mapping[str, float], params: Sequence[tuple[str, Any]], library: Library
) -> list[Arrays]:
    """For each parameter, given with where it stands, its states before the first step.

    Raises:
        TypeError: a parameter is of a type that cannot be trained.
    """
    states: list[Arrays] = []
    for where, p in params:
        dtype = library.dtype(p)
        if dtype not in TYPES:
            raise TypeError(f"{where} is of type {dtype}; a parameter is of {', '.join(TYPES)}")
        state: Arrays = {}
        for key in program.initial:
            value = initial_value(program, key, p, {**values, "ndim": float(len(p.shape))}, library.xp)
            if key in program.scalars:
                state[key] = float(value)
                continue
            stored = _working(dtype) if key in program.precise else dtype
            # A state that starts as the parameter is an array of its own: either may be written to, or donated.
            state[key] = _new(value, p, stored, library)
        states.append(state)
    return states


def advance(
    program: Program,
    values: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    t: Any,
    params: Sequence[Any],
    grads: Sequence[Any],
    states: Sequence[Arrays],
    library: Library,
) -> tuple[list[Any], list[Arrays], Arrays]:
    """Take step number ``t``, 1 being the first.

    Args:
        program: what to compute.
        values: the program's hyperparameters: numbers, or arrays without dimensions whose values are not known yet; for
            all parameters the same, or a list with those of each.
        t: a number, or such an array.
        params, grads, states: as many of each.
        library: whose arrays they are.

    Returns:
        The new parameters, their new states, and what transforms report.
    """
    groups = [values] * len(params) if isinstance(values, Mapping) else values
    different = {id(group): group for group in groups}.values()
    numbers = [t, *(x for group in different for x in group.values())]
    numbers += [state[key] for key in program.scalars for state in states]
    rows = zip(groups, params, grads, states, strict=True)
    with library.arithmetic():
        if any(map(library.is_traced, numbers)):
            arrays = [_Array(program, p, g, state, library) for _, p, g, state in rows]
            return _Traced(program, groups, t, arrays, library).step()
        return _finish(_decided([Item(program, group, float(t), p, g, s) for group, p, g, s in rows], library))


@dataclass
class Item:
    """One parameter that takes part in a step, with everything that is its own.

    Attributes:
        program: what to compute; all of a step have the same transforms.
        values: the program's hyperparameters, one object for all parameters that share them.
        t: its step number, 1 being the first.
        p, g, state: its arrays.
    """

    program: Program
    values: Mapping[str, float]
    t: float
    p: Any
    g: Any
    state: Arrays


def situations(items: Sequence[Item]) -> list[Situation]:
    """What the step is for each of these parameters; computed once for those whose step values must be the same."""
    known: dict[Any, Situation] = {}
    found: list[Situation] = []
    for item in items:
        scalars = [float(item.state[key]) for key in item.program.scalars]
        case = (id(item.program), id(item.values), item.t, len(item.p.shape), *scalars)
        if case not in known:
            known[case] = item.program.situation(item.values, item.t, len(item.p.shape), scalars)
        found.append(known[case])
    return found


def advance_each(items: Sequence[Item], library: Library) -> tuple[Iterator[tuple[Any, Arrays]], Arrays]:
    """Take one step of parameters that may differ in hyperparameters, weight decay and step count.

    Returns:
        For each parameter its new value and its new states, each computed when it is asked for, so that whoever writes
        them in place needs no memory for them all; and what transforms report.
    """
    with library.arithmetic():
        arrays = _decided(items, library)
        reports = _reduce_over_the_model(arrays)

    def results() -> Iterator[tuple[Any, Arrays]]:
        for array in arrays:
            with library.arithmetic():
                new = array.result()
            yield new

    return results(), reports


def _decided(items: Sequence[Item], library: Library) -> list[_Array]:
    arrays: list[_Array] = []
    for item, situation in zip(items, situations(items), strict=True):
        arrays.append(_Array(item.program, item.p, item.g, item.state, library))
        arrays[-1].decide(*situation)
    return arrays


def _working(dtype: str) -> str:
    return dtype if dtype == "float64" else "float32"


def _new(value: Any, like: Any, dtype: str, library: Library) -> Any:
    """A value in the shape of ``like``, in an array that nobody else holds."""
    if isinstance(value, (bool, int, float)):
        return library.filled(like, float(value), dtype)
    return library.filled(like, 1.0, dtype) * library.cast(value, dtype)


@cache
def _row_names(count: int) -> tuple[str, ...]:
    return tuple(f"row[{i}]" for i in range(count))


class _Values(dict[str, Any]):
    """A parameter's arrays in the working type, each cast when it is first asked for, and its step values."""

    def __init__(self, stored: Arrays, working: str, library: Library):
        super().__init__()
        self.stored, self.working, self.library = stored, working, library

    def __missing__(self, name: str) -> Any:
        self[name] = x = self.library.cast(self.stored[name], self.working)
        return x


class _Array:
    """One parameter in its step: its arrays, the step values, and the reductions over the model."""

    def __init__(self, program: Program, p: Any, g: Any, state: Arrays, library: Library):
        self.program, self.library = program, library
        self.shape = tuple(p.shape)
        self.ndim = len(self.shape)
        self.size = math.prod(map(int, self.shape))
        self.scalars = [state[key] for key in program.scalars]
        self.stored = {"p": p, "g": g}
        for key in program.states:
            self.stored[f"state.{key}"] = state[key]
        self.working = _working(library.dtype(p))
        self.values = _Values(self.stored, self.working, library)
        self.known: dict[Expr, Any] = {}

    def decide(self, variant: Variant, row: Sequence[Any], after: Sequence[Any]) -> None:
        """Settle what is to be computed, with these step values."""
        self.variant, self.after = variant, after
        self.values.update(zip(_row_names(len(row)), row, strict=True))

    def summand(self, i: int) -> Any:
        """What the i-th of the reductions over the model adds up."""
        return self.variant.compute_summands[i](self.library.xp, self.values, self.known)[0]

    def report(self, expression: Expr) -> Any:
        return on_arrays(expression, self.values, self.known, self.library.xp)

    def result(self) -> tuple[Any, Arrays]:
        # A state that this step leaves alone stays as it is stored.
        final = dict(self.stored)
        # Of an array without elements there is nothing to compute, and some means of none are an error.
        if self.size:
            new = self.variant.compute_results(self.library.xp, self.values, self.known)
            # A first momentum is the gradient, and slow weights are at times the fast ones: each its own array.
            taken = {*map(id, self.stored.values()), *map(id, self.values.values())}
            for name, value in zip(("p", *(f"state.{key}" for key in self.variant.states)), new, strict=True):
                final[name] = whole = self.fit(value, self.library.dtype(self.stored[name]), taken)
                taken.add(id(whole))
        self.values.clear()
        state = {key: final[f"state.{key}"] for key in self.program.states}
        state.update(zip(self.program.scalars, self.after, strict=True))
        return final["p"], state

    def fit(self, value: Any, dtype: str, taken: set[int]) -> Any:
        """A new value as it is stored: a number or a row's value is spread over the parameter's shape."""
        if not isinstance(value, (bool, int, float)):
            whole = self.library.cast(value, dtype)
            if tuple(whole.shape) == self.shape and id(whole) not in taken:
                return whole
        return _new(value, self.stored["p"], dtype, self.library)


def _finish(arrays: Sequence[_Array]) -> tuple[list[Any], list[Arrays], Arrays]:
    reports = _reduce_over_the_model(arrays)
    results = [array.result() for array in arrays]
    return [p for p, _ in results], [state for _, state in results], reports


def _reduce_over_the_model(arrays: Sequence[_Array]) -> Arrays:
    """Compute the reductions that span all parameters, innermost first, tell every parameter, and make the reports."""
    for i, nodes in enumerate(zip(*(array.variant.over_model for array in arrays), strict=True)):
        xp = arrays[0].library.xp
        full = [array for array in arrays if array.size]
        widest = "float64" if any(array.working == "float64" for array in full) else "float32"
        parts = [array.library.cast(xp.sum(array.summand(i)), widest) for array in full]
        total: Any = parts[0] if parts else xp.sum(arrays[0].values["p"])
        for part in parts[1:]:
            total = total + part
        count = max(sum(array.size for array in arrays), 1)
        for node, array in zip(nodes, arrays, strict=True):
            result = total / count if node.op == "mean" else total
            array.known[node] = array.library.cast(result, array.working)
    return {name: arrays[0].report(value) for name, value in arrays[0].variant.reports.items()}


@dataclass
class _Traced:
    """A step whose number, or some hyperparameter, is not known while it is written down."""

    program: Program
    given: Sequence[Mapping[str, Any]]
    t: Any
    arrays: Sequence[_Array]
    library: Library

    def step(self) -> tuple[list[Any], list[Arrays], Arrays]:
        with self.library.float64():
            number = self.library.step_value
            t = number(self.t) if self.library.is_traced(self.t) else float(self.t)
            like = number(0.0)
            groups = {
                id(group): {name: number(x) if self.library.is_traced(x) else x for name, x in group.items()}
                for group in self.given
            }
            self.values: list[Mapping[str, Any]] = []
            self.memos: list[dict[Expr, Any]] = []
            # What depends on neither dimensions nor scalar states is the same for all: computed once for each case.
            cases: dict[Any, tuple[Mapping[str, Any], dict[Expr, Any]]] = {}
            for array, group in zip(self.arrays, self.given, strict=True):
                scalars = [number(x) if self.library.is_traced(x) else float(x) for x in array.scalars]
                case = (id(group), array.ndim, *map(id, array.scalars))
                if case not in cases:
                    known = {**groups[id(group)], "t": t, "p": like, "ndim": float(array.ndim)}
                    known.update((f"state.{key}", x) for key, x in zip(self.program.scalars, scalars, strict=True))
                    cases[case] = known, {}
                self.values.append(cases[case][0])
                self.memos.append(cases[case][1])
            rows: dict[Any, list[Any]] = {}
            for i, array in enumerate(self.arrays):
                variant = self.variant(i)
                case = (id(variant), id(self.memos[i]))
                if case not in rows:
                    rows[case] = self.row(i, variant)
                after = [self.scalar(i, value) for value in self.program.scalars.values()]
                array.decide(
                    variant,
                    [self.number(x, array.working) for x in rows[case]],
                    [self.number(x, array.working) for x in after],
                )
        return _finish(self.arrays)

    def scalar(self, i: int, expression: Expr, memo: dict[Expr, Any] | None = None) -> Any:
        return on_arrays(expression, self.values[i], self.memos[i] if memo is None else memo, self.library.xp)

    def variant(self, i: int) -> Variant:
        """What to compute of an array: the decisions that are known are taken, the others left to each element."""
        conditions = [self.scalar(i, node) for node in self.program.decisions]
        return self.program.variant_of(tuple(float(x) if _is_number(x) else None for x in conditions))

    def row(self, i: int, variant: Variant) -> list[Any]:
        """The step values of a variant.

        One that only serves a side that is not chosen is 1: it might be NaN, to which autograd would find its way
        through the choice; a branch that is not taken has no derivative.
        """
        guards = _guards(variant)
        values: list[Any] = [None] * len(variant.row)
        guarded: dict[frozenset[tuple[int, bool]], list[int]] = {}
        for k, value in enumerate(variant.row):
            is_condition = value.op in OPS and OPS[value.op].kind in ("comparison", "logic")
            if guards[k] and not is_condition and not self.is_known(i, value):
                guarded.setdefault(guards[k], []).append(k)
            else:
                values[k] = self.scalar(i, value)
        for guard, indices in guarded.items():
            holds: Any = None
            for condition, side in sorted(guard):
                here = self.scalar(i, variant.row[condition])
                here = here if side else ~here
                holds = here if holds is None else holds & here

            def taken(indices: Sequence[int] = indices) -> list[Any]:
                # What is traced in a branch is known there alone.
                inside = dict(self.memos[i])
                return [self.library.step_value(self.scalar(i, variant.row[k], inside)) for k in indices]

            def idle(indices: Sequence[int] = indices) -> list[Any]:
                return [self.library.step_value(1.0) for _ in indices]

            for k, value in zip(indices, self.library.cond(holds, taken, idle), strict=True):
                values[k] = value
        return values

    def is_known(self, i: int, expression: Expr) -> bool:
        """Whether a step value is a number already."""
        return all(_is_number(self.values[i][node.data]) for node in walk([expression]) if node.op == "symbol")

    def number(self, x: Any, dtype: str) -> Any:
        """A step value in the type in which it meets arrays; a plain number fits any, and a condition is of none."""
        if _is_number(x):
            return float(x)
        return x if self.library.dtype(x) == "bool" else self.library.cast(x, dtype)


def _is_number(x: Any) -> bool:
    return isinstance(x, (bool, int, float))


def _guards(variant: Variant) -> list[frozenset[tuple[int, bool]]]:
    """For each step value, the open decisions and their sides that every way to it leads through.

    A decision is known by the place of its condition among the step values.
    """
    place = {f"row[{k}]": k for k in range(len(variant.row))}
    roots = [variant.parameter, *variant.states.values(), *variant.reports.values()]
    through: dict[Expr, frozenset[tuple[int, bool]]] = dict.fromkeys(roots, frozenset())
    for node in reversed(list(walk(roots))):
        for n, arg in enumerate(node.args):
            way = through[node]
            if node.op == "where" and n and node.args[0].op == "symbol" and node.args[0].data in place:
                way |= {(place[node.args[0].data], n == 1)}
            through[arg] = through[arg] & way if arg in through else way
    found: list[frozenset[tuple[int, bool]]] = [frozenset()] * len(variant.row)
    for node, way in through.items():
        if node.op == "symbol" and node.data in place:
            found[place[node.data]] = way
    return found


__all__ = ["TYPES", "Arrays", "Item", "advance", "advance_each", "initial_states", "situations"]
