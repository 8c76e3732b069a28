"""Expressions: what a rule computes, as an immutable graph of shared nodes."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar, NoReturn
from weakref import WeakValueDictionary

from onepass.lang.ops import OPS


class Level(IntEnum):
    """How often a value is computed: once a step on the host, ... , once for every element of a parameter."""

    STEP = 0
    MODEL = 1
    TENSOR = 2
    ROW = 3
    ELEMENT = 4


REDUCTION_LEVELS = {"model": Level.MODEL, "tensor": Level.TENSOR, "row": Level.ROW}


class Expr:
    """A node: an op applied to nodes, a named symbol, or a constant.

    Nodes are shared: two expressions built alike *are* the same object, so that identity is equality, common
    subexpressions are common from the start, and ``==`` is free to mean the comparison that a rule writes.
    """

    __slots__ = ("__weakref__", "args", "data", "level", "op")

    op: str  # a name of the op table, or "symbol", or "constant"
    args: tuple[Expr, ...]
    data: Any  # a symbol's name, a constant's value, what a reduction runs over; else None
    level: Level

    _shared: ClassVar[WeakValueDictionary[tuple[Any, ...], Expr]] = WeakValueDictionary()

    def __new__(cls, op: str, args: tuple[Expr, ...] = (), data: Any = None, level: Level = Level.STEP) -> Expr:
        # The arguments stay alive as long as the node does, so their addresses identify them. A constant is told
        # apart by its spelling: 0.0 and -0.0 are equal, and not the same.
        identity = (op, tuple(map(id, args)), repr(data), level)
        node = cls._shared.get(identity)
        if node is None:
            node = object.__new__(cls)
            for name, value in (("op", op), ("args", args), ("data", data), ("level", level)):
                object.__setattr__(node, name, value)
            node = cls._shared.setdefault(identity, node)
        return node

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an expression is immutable: cannot set {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Expr, (self.op, self.args, self.data, self.level)

    def __bool__(self) -> bool:
        raise TypeError(
            f"a rule cannot branch on {self!r}, whose value is known only when it runs: "
            "write where(condition, a, b) instead of `if`, `and`, `or` or a chained comparison"
        )

    def __iter__(self) -> NoReturn:
        raise TypeError(f"{self!r} is one value and cannot be unpacked")

    def __repr__(self) -> str:
        if self.op == "symbol":
            return str(self.data)
        if self.op == "constant":
            return repr(self.data)
        over = f", over={self.data!r}" if self.data else ""
        return f"{self.op}({', '.join(map(repr, self.args))}{over})"

    __hash__ = object.__hash__

    def __add__(self, other: Any) -> Any:
        return apply("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return apply("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return apply("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return apply("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return apply("mul", self, other)

    def __rmul__(self, other: Any) -> Any:
        return apply("mul", other, self)

    def __truediv__(self, other: Any) -> Any:
        return apply("div", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return apply("div", other, self)

    def __pow__(self, other: Any) -> Any:
        return apply("pow", self, other)

    def __rpow__(self, other: Any) -> Any:
        return apply("pow", other, self)

    def __mod__(self, other: Any) -> Any:
        return apply("mod", self, other)

    def __rmod__(self, other: Any) -> Any:
        return apply("mod", other, self)

    def __neg__(self) -> Expr:
        return apply("neg", self)

    def __abs__(self) -> Expr:
        return apply("absolute", self)

    def __lt__(self, other: Any) -> Any:
        return apply("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return apply("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return apply("gt", self, other)

    def __ge__(self, other: Any) -> Any:
        return apply("ge", self, other)

    def __eq__(self, other: Any) -> Any:
        return apply("eq", self, other)

    def __ne__(self, other: Any) -> Any:
        return apply("ne", self, other)

    def __and__(self, other: Any) -> Any:
        return apply("and", self, other)

    def __rand__(self, other: Any) -> Any:
        return apply("and", other, self)

    def __or__(self, other: Any) -> Any:
        return apply("or", self, other)

    def __ror__(self, other: Any) -> Any:
        return apply("or", other, self)


def symbol(name: str, level: Level) -> Expr:
    """A named value that is given from outside: a parameter, a gradient, a state, a hyperparameter, the step count."""
    return Expr("symbol", (), name, level)


def constant(value: float) -> Expr:
    """A number written in a rule."""
    return Expr("constant", (), value if isinstance(value, bool) else float(value))


def apply(op: str, *args: Any, over: str | None = None) -> Any:
    """The node of ``op`` on ``args``, numbers among them becoming constants; ``NotImplemented`` for anything else."""
    nodes: list[Expr] = []
    for arg in args:
        if not isinstance(arg, (Expr, int, float)):
            return NotImplemented
        nodes.append(arg if isinstance(arg, Expr) else constant(arg))
    row = OPS[op]
    if len(nodes) != row.arity:
        raise TypeError(f"{op} takes {row.arity} arguments, not {len(nodes)}")
    if row.kind == "reduction":
        if over not in REDUCTION_LEVELS:
            raise ValueError(f"{op} runs over 'row', 'tensor' or 'model', not {over!r}")
        return Expr(op, tuple(nodes), over, REDUCTION_LEVELS[over])
    return Expr(op, tuple(nodes), None, max(node.level for node in nodes))
