"""How a Keras optimizer's step is computed: by pure functions, or in place by torch's kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from onepass.compiler import Program, Work, initial_value, walk
from onepass.functional.core import advance
from onepass.functional.library import Library

Values = Mapping[str, Any]


@dataclass
class Variables:
    """What a step reads and writes: Keras's variables, or what a backend has in their place.

    Attributes:
        params: the variables that are trained.
        states: for each key of the program's tensor states, one for each of them.
        scalars: for each key of a state that is one number; all parameters share it, as they do the step count.
        reports: for each name that transforms report, where it goes.
        excluded: which of the variables have no weight decay.
    """

    params: list[Any]
    states: dict[str, list[Any]]
    scalars: dict[str, Any]
    reports: dict[str, Any]
    excluded: list[bool]

    def flat(self) -> list[Any]:
        """All of them but the parameters, in an order that `like` takes."""
        return [*(v for row in self.states.values() for v in row), *self.scalars.values(), *self.reports.values()]

    def like(self, params: Sequence[Any], flat: Sequence[Any]) -> Variables:
        """The same with others in their places."""
        rest = iter(flat)
        states = {key: [next(rest) for _ in params] for key in self.states}
        scalars = {key: next(rest) for key in self.scalars}
        return Variables(list(params), states, scalars, {key: next(rest) for key in self.reports}, self.excluded)

    def some(self, places: Sequence[int]) -> Variables:
        """Those of some parameters."""
        states = {key: [row[i] for i in places] for key, row in self.states.items()}
        excluded = [self.excluded[i] for i in places]
        return Variables([self.params[i] for i in places], states, self.scalars, self.reports, excluded)


def array(x: Any) -> Any:
    """A Keras variable as the backend's array; anything else as it is."""
    return x.value if isinstance(x, keras.Variable) else x


def groups(values: Values, lr: Any, excluded: Sequence[bool]) -> list[Values]:
    """The hyperparameters of each parameter."""
    mine = {**values, "lr": lr} if "lr" in values else values
    without = {**mine, "weight_decay": 0.0} if "weight_decay" in mine else mine
    return [without if out else mine for out in excluded]


def from_parameter(program: Program) -> list[str]:
    """The keys of the states that start as the parameter stands: Lookahead's slow weights."""
    return [
        key for key in program.states if any(n.op == "symbol" and n.data == "p" for n in walk([program.initial[key]]))
    ]


def start_of(program: Program, key: str, values: Values, p: Any, library: Library) -> Any:
    """A state before the first step: a number or an array."""
    return initial_value(program, key, p, {**values, "ndim": float(len(p.shape))}, library.xp)


class PureStep:
    """A step of any array library, traced or not."""

    def __init__(self, program: Program, values: Values, library: Library):
        self.program, self.values, self.library = program, values, library
        self.anew = from_parameter(program)

    def number(self, x: Any) -> Any:
        x = keras.ops.convert_to_tensor(x)
        return x if self.library.is_traced(x) else float(x)

    def __call__(self, variables: Variables, grads: Sequence[Any], iterations: Any, lr: Any, assign: Any) -> None:
        """Take the step after ``iterations`` steps, and write it with ``assign(variable, value)``."""
        t = self.number(iterations) + 1
        params = [array(v) for v in variables.params]
        scalars = {key: array(v) for key, v in variables.scalars.items()}
        states: list[dict[str, Any]] = [
            {**{key: array(row[i]) for key, row in variables.states.items()}, **scalars} for i in range(len(params))
        ]
        for key in self.anew:
            for p, state in zip(params, states, strict=True):
                state[key] = self.unless_first(t, key, p, state[key])
        values = groups(self.values, self.number(lr), variables.excluded)
        new, after, reports = advance(self.program, values, t, params, grads, states, self.library)
        for i, (variable, value) in enumerate(zip(variables.params, new, strict=True)):
            assign(variable, value)
            for key, row in variables.states.items():
                assign(row[i], after[i][key])
        for key, variable in variables.scalars.items():
            assign(variable, keras.ops.convert_to_tensor(after[0][key], variable.dtype))
        for key, variable in variables.reports.items():
            assign(variable, keras.ops.convert_to_tensor(reports[key], variable.dtype))

    def unless_first(self, t: Any, key: str, p: Any, stored: Any) -> Any:
        """A state that starts as the parameter stands at its first step: weights may be loaded after ``build``."""
        if not self.library.is_traced(t):
            return self.library.cast(self.start(key, p), self.library.dtype(stored)) if t == 1 else stored
        stored = keras.ops.convert_to_tensor(stored)
        return self.library.xp.where(t == 1, self.library.cast(self.start(key, p), self.library.dtype(stored)), stored)

    def start(self, key: str, p: Any) -> Any:
        return start_of(self.program, key, self.values, p, self.library)


class TorchStep:
    """A step in place, by the backend that serves `onepass.Optimizer`: compiled kernels where they can serve."""

    def __init__(self, program: Program, values: Values, library: Library):
        import torch
        from torch._compile import _disable_dynamo

        from onepass.backends.select import Runner

        self.torch, self.program, self.values, self.library = torch, program, values, library
        self.anew = from_parameter(program)
        self.runner = Runner()
        self.states: dict[Any, dict[str, Any]] = {}
        # The step count that all parameters' states hold, if they hold the same.
        self.count: float | None = None
        self.run = _disable_dynamo(lambda *args: self._run(*args))

    def __call__(self, variables: Variables, grads: Sequence[Any], iterations: Any, lr: Any, assign: Any) -> None:
        with self.torch.no_grad():
            self.run(variables, grads, iterations, lr, assign)

    def _run(self, variables: Variables, grads: Sequence[Any], iterations: Any, lr: Any, assign: Any) -> None:
        """Take the step of all variables whose gradient is not None."""
        params = [array(v) for v in variables.params]
        tensors = {key: [array(v) for v in row] for key, row in variables.states.items()}
        count = float(iterations)
        self.prepare(params, tensors, count, {key: float(array(v)) for key, v in variables.scalars.items()})
        if count == 0:
            for key in self.anew:
                for p, state in zip(params, tensors[key], strict=True):
                    state.copy_(start_of(self.program, key, self.values, p, self.library))
        works = self.works(params, groups(self.values, float(lr), variables.excluded))
        kept = [p.grad for p in params]
        try:
            for p, g in zip(params, grads, strict=True):
                p.grad = g if g is None or g.dtype is p.dtype else g.to(p.dtype)
            reports = self.runner.step(works, self.states)
        finally:
            for p, g in zip(params, kept, strict=True):
                p.grad = g
        self.count = count + 1 if all(g is not None for g in grads) else None
        for key, row in tensors.items():
            for p, tensor, variable in zip(params, row, variables.states[key], strict=True):
                # A kernel may have taken a copy with the strides of its parameter.
                if self.states[p][key] is not tensor:
                    assign(variable, self.states[p][key])
        stepped = next(p for p, g in zip(params, grads, strict=True) if g is not None)
        for key, variable in variables.scalars.items():
            assign(variable, float(self.states[stepped][key]))
        for key, variable in variables.reports.items():
            assign(variable, reports[key])

    def prepare(self, params: list[Any], tensors: Mapping[str, list[Any]], count: float, scalars: Values) -> None:
        """Make the states of the runner those that the variables hold."""
        for i, p in enumerate(params):
            state = self.states.get(p)
            if state is None:
                state = self.states[p] = {"step": self.torch.tensor(count, dtype=self.torch.float32)}
                state.update((key, self.torch.tensor(x, dtype=self.torch.float64)) for key, x in scalars.items())
            for key, row in tensors.items():
                if state.get(key) is not row[i]:
                    state[key] = row[i]
            for key, x in scalars.items():
                state[key].fill_(x)
        if count != self.count:
            for p in params:
                self.states[p]["step"].fill_(count)

    def works(self, params: list[Any], values: list[Values]) -> list[Work]:
        members: dict[int, tuple[Values, list[Any]]] = {}
        for p, mine in zip(params, values, strict=True):
            members.setdefault(id(mine), (mine, []))[1].append(p)
        return [Work(self.program, mine, owned, lambda p, *_: self.states[p]) for mine, owned in members.values()]


def on_all_replicas(
    optimizer: Any, step: PureStep, variables: Variables, grads: Sequence[Any], iterations: Any, lr: Any
) -> None:
    """A step under the TensorFlow backend: of summed gradients, on every replica of a distribution strategy."""
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        step(variables, grads, iterations, lr, optimizer.assign)
        return

    def assign(variable: Any, value: Any) -> None:
        variable.assign(tf.cast(value, variable.dtype))

    def on_one(_: Any, params: Any, flat: Any, grads: Any, iterations: Any, lr: Any) -> None:
        step(variables.like(params, flat), grads, iterations, lr, assign)

    def everywhere(strategy: Any, params: Any, flat: Any, grads: Any, iterations: Any, lr: Any) -> None:
        arguments = (params, flat, grads, iterations, lr)
        strategy.extended.update(params[0], on_one, args=arguments, group=False)

    params = [array(v) for v in variables.params]
    summed = [g for g, _ in optimizer._all_reduce_sum_gradients(list(zip(grads, params, strict=True)))]
    flat = [array(v) for v in variables.flat()]
    arguments = (params, flat, summed, array(iterations), array(lr))
    tf.__internal__.distribute.interim.maybe_merge_call(everywhere, strategy, *arguments)
