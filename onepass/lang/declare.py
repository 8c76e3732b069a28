"""``@rule`` and ``@transform``: a function's signature is its declaration.

The reserved positional arguments are

- ``g`` the gradient, ``p`` the parameter (both as they were before the step),
- ``t`` the parameter's own step count, 1, 2, ...,
- ``lr`` the learning rate, and ``ndim`` the parameter's number of dimensions.

Every other positional argument is a **state**: one tensor like the parameter, zero at first unless ``init`` says
otherwise. Keyword-only arguments are **hyperparameters**, with their defaults. A function returns its result, followed
by the new value of each state in the order of the signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from onepass.lang.ranges import COMMON, Range, check

RESERVED = ("g", "p", "t", "lr", "ndim")


@dataclass(frozen=True)
class scalar:
    """An initial value that makes a state one number for each parameter, kept on the host, instead of a tensor."""

    value: float


Init = float | scalar | Callable[..., Any]


@dataclass(frozen=True)
class State:
    """A state: its name in the rule, its key in checkpoints, its initial value.

    ``init`` is a number, or a function of ``p`` and of hyperparameters, named by its arguments. ``is_precise`` keeps
    the state in float32 at the least, whatever the parameter's type.
    """

    name: str
    key: str
    init: float | Callable[..., Any]
    is_scalar: bool = False
    is_precise: bool = False


@dataclass(frozen=True, eq=False)
class Declaration:
    """What the signature of a rule or of a transform declares."""

    function: Callable[..., Any]
    name: str
    inputs: tuple[str, ...]
    states: tuple[State, ...]
    hyperparameters: Mapping[str, Any]
    ranges: Mapping[str, Range]
    paper: str = ""

    subjects: ClassVar[tuple[str, ...]] = ()

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def check(self, owner: str, values: Mapping[str, Any]) -> None:
        """Raise ``TypeError`` or ``ValueError``, naming the value, if a hyperparameter cannot be used."""
        for name, default in self.hyperparameters.items():
            if name in values:
                check(owner, name, values[name], default, self.ranges.get(name))

    def __reduce__(self) -> str:
        # Pickled by name, as functions are: what unpickles is the declaration itself.
        return self.function.__qualname__

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.name}{inspect.signature(self.function)}>"


@dataclass(frozen=True, eq=False, repr=False)
class Rule(Declaration):
    """An update rule. Calling it runs the mathematics on whatever is passed: numbers, arrays or symbols.

    The result is the direction ``u`` of ``p <- p - lr * u``; a rule that takes ``lr`` returns the whole step instead.
    """

    lr: float = 1e-3
    like: str = ""

    subjects: ClassVar[tuple[str, ...]] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def returns_step(self) -> bool:
        return "lr" in self.inputs


@dataclass(frozen=True, eq=False, repr=False)
class Transform(Declaration):
    """A change to any rule. Its first argument says what it changes, and it returns the changed value:

    ``g`` the gradient before the rule sees it; ``u`` the direction that the rule found; ``p`` the parameter that the
    step starts from; ``p_next`` the parameter that the step has reached. Calling it gives its hyperparameters values.
    ``reports`` are values that the optimizer offers after a step.
    """

    reports: Mapping[str, Callable[..., Any]] = field(default_factory=dict[str, Callable[..., Any]])

    subjects: ClassVar[tuple[str, ...]] = ("u", "p_next")

    @property
    def subject(self) -> str:
        return self.inputs[0]

    def __call__(self, *args: Any, **kwargs: Any) -> Applied:
        names = tuple(self.hyperparameters)
        if len(args) > len(names):
            raise TypeError(f"{self.name} takes at most {len(names)} values ({', '.join(names)}), not {len(args)}")
        values = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                raise TypeError(f"{self.name} has no hyperparameter {name!r}; it has: {', '.join(names) or 'none'}")
            if name in values:
                raise TypeError(f"{self.name} got {name!r} twice")
            values[name] = value
        values = {**self.hyperparameters, **values}
        missing = [name for name, value in values.items() if value is inspect.Parameter.empty]
        if missing:
            raise TypeError(f"{self.name} needs a value for {', '.join(missing)}")
        self.check(self.name, values)
        return Applied(self, tuple(values.items()))


@dataclass(frozen=True)
class Applied:
    """A transform with values for its hyperparameters, as ``lookahead(k=5)`` returns it."""

    transform: Transform
    items: tuple[tuple[str, Any], ...]

    @property
    def values(self) -> dict[str, Any]:
        return dict(self.items)

    def __repr__(self) -> str:
        return f"{self.transform.name}({', '.join(f'{name}={value!r}' for name, value in self.items)})"


def _declare(
    function: Callable[..., Any],
    subjects: tuple[str, ...],
    state: Mapping[str, str] | None,
    init: Mapping[str, Init] | None,
    ranges: Mapping[str, str] | None,
    precise: Sequence[str],
) -> dict[str, Any]:
    """The fields of a declaration, read from a signature and checked against what the decorator was told."""
    keys, inits, intervals = dict(state or {}), dict(init or {}), dict(ranges or {})
    name = function.__name__
    inputs: list[str] = []
    states: list[State] = []
    hyperparameters: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            hyperparameters[parameter.name] = parameter.default
        elif parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty:
            raise TypeError(
                f"{name}: {parameter} must be a plain positional argument (a tensor) or come after * (a hyperparameter)"
            )
        else:
            inputs.append(parameter.name)
            if parameter.name not in RESERVED and parameter.name not in subjects:
                start = inits.pop(parameter.name, 0.0)
                value = start.value if isinstance(start, scalar) else start
                key = keys.pop(parameter.name, parameter.name)
                states.append(State(parameter.name, key, value, isinstance(start, scalar), parameter.name in precise))
    wrong = (
        ("state", keys),
        ("init", inits),
        ("ranges", intervals.keys() - hyperparameters.keys()),
        ("precise", set(precise) - {state.name for state in states}),
    )
    for what, unknown in wrong:
        if unknown:
            raise TypeError(f"{name}: {what}= names {', '.join(map(repr, unknown))}, which its signature does not have")
    allowed = {key: COMMON[key] for key in hyperparameters if key in COMMON}
    allowed.update((key, Range.parse(text)) for key, text in intervals.items())
    return {
        "function": function,
        "name": name,
        "inputs": tuple(inputs),
        "states": tuple(states),
        "hyperparameters": hyperparameters,
        "ranges": allowed,
    }


def _adopt(declaration: Any) -> Any:
    """Give a declaration its function's name and documentation, so that help() and pickle find them."""
    for attribute in ("__doc__", "__module__", "__qualname__", "__name__"):
        object.__setattr__(declaration, attribute, getattr(declaration.function, attribute))
    return declaration


def rule(
    function: Callable[..., Any] | None = None,
    /,
    *,
    paper: str = "",
    like: str = "",
    lr: float = 1e-3,
    state: Mapping[str, str] | None = None,
    init: Mapping[str, Init] | None = None,
    ranges: Mapping[str, str] | None = None,
    precise: Sequence[str] = (),
) -> Any:
    """Declare an update rule.

    Args:
        function: the rule, when the decorator is used without parentheses.
        paper: where the rule comes from.
        like: the implementation whose variant this is, such as ``"torch.optim.Adam"``.
        lr: the learning rate that its optimizer has by default.
        state: for a state's name in the signature, its key in checkpoints (by default the same).
        init: for a state's name, its initial value: a number (zero by default), ``scalar(number)`` for a state that is
            one number for each parameter, or a function of ``p`` and of hyperparameters, as in ``lambda p: p``.
        ranges: for a hyperparameter's name, the interval it must lie in, as in ``"[0, 1)"`` or ``"[1, inf) integer"``.
        precise: names of states to be kept in float32 at the least, whatever the parameter's type.

    Returns:
        The rule, or the decorator that makes it.

    Raises:
        TypeError: the signature has something that is no declaration, or the decorator names what it lacks.

    Example:
        >>> from onepass import rule, ema, sign
        >>> @rule
        ... def signum(g, m, *, momentum=0.9):
        ...     m = ema(m, g, momentum)
        ...     return sign(m), m
        >>> signum(2.0, 0.0)
        (1.0, 0.19999999999999996)
    """

    def decorate(function: Callable[..., Any]) -> Rule:
        fields = _declare(function, Rule.subjects, state, init, ranges, precise)
        if "g" not in fields["inputs"]:
            raise TypeError(f"{function.__name__}: a rule takes the gradient `g`; this one has {fields['inputs']}")
        return _adopt(Rule(**fields, paper=paper, like=like, lr=lr))

    return decorate if function is None else decorate(function)


def transform(
    function: Callable[..., Any] | None = None,
    /,
    *,
    paper: str = "",
    state: Mapping[str, str] | None = None,
    init: Mapping[str, Init] | None = None,
    ranges: Mapping[str, str] | None = None,
    precise: Sequence[str] = (),
    reports: Mapping[str, Callable[..., Any]] | None = None,
) -> Any:
    """Declare a transform of rules; the arguments are those of `rule`. The first argument says what it changes:
    ``g``, ``u``, ``p`` or ``p_next`` (see `Transform`). ``reports`` are values of the model that the optimizer offers
    after a step, each a function of what the transform changes, as it was before.

    Raises:
        TypeError: as `rule` does, and when the first argument is none of the four.
    """

    def decorate(function: Callable[..., Any]) -> Transform:
        fields = _declare(function, Transform.subjects, state, init, ranges, precise)
        if fields["inputs"][:1] not in [("g",), ("u",), ("p",), ("p_next",)]:
            raise TypeError(f"{function.__name__}: a transform's first argument is g, u, p or p_next")
        return _adopt(Transform(**fields, paper=paper, reports=dict(reports or {})))

    return decorate if function is None else decorate(function)
