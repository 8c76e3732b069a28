"""Write a variant as the Python source of a kernel that Numba can compile.

A kernel walks a table of chunks. It claims the next one, finds its tensor's addresses and step values, and goes over
its elements in one loop: each value is loaded once, everything is computed in registers, each result is stored once. A
reduction over a tensor or the model splits the work: a kernel that only reads runs first and leaves one partial sum for
every chunk. The mean of a row is taken inside, where the row is still in cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onepass.compiler import Variant, text, walk
from onepass.lang import OPS, Expr, Level

# What a storage type is called in a kernel, and how many bytes it takes.
STORAGE = {"float32": ("f32", 4), "float64": ("f64", 8), "bfloat16": ("bf16", 2), "float16": ("f16", 2)}

NUMBA: dict[str, str] = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "{} / {}",
    "pow": "power({}, {})",
    "mod": "{} % {}",
    "neg": "-{}",
    "absolute": "absolute({})",
    "sqrt": "sqrt({})",
    "exp": "exp({})",
    "log": "log({})",
    "sign": "sign({})",
    "maximum": "maximum({}, {})",
    "minimum": "minimum({}, {})",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "and": "{} & {}",
    "or": "{} | {}",
    "where": "select({}, {}, {})",
    "sum": "total({}, {})",
    "mean": "total({}, {})",
}

# The columns that a tensor's row of the table begins with; the addresses follow, in the order of `Layout.arrays`.
ROW_OF_VALUES, ROW_LENGTH = 0, 1
FIRST_ADDRESS = 2


@dataclass(frozen=True)
class Layout:
    """What a kernel's arguments look like.

    Attributes:
        arrays: for ``p``, ``g`` and each state that the variant reads or writes, its storage type.
        real: the type of the arithmetic, float32 or float64.
    """

    arrays: tuple[tuple[str, str], ...]
    real: str

    @property
    def columns(self) -> int:
        return FIRST_ADDRESS + len(self.arrays)


def layout(storage: Mapping[str, str]) -> Layout:
    """The layout of the kernels for arrays of these storage types, ``{"p": "float32", "g": ..., "state.KEY": ...}``."""
    return Layout(tuple(storage.items()), "float64" if storage["p"] == "float64" else "float32")


def phases(variant: Variant) -> tuple[tuple[Expr, ...], ...]:
    """The reductions that need a kernel of their own, grouped: those of a group do not depend on one another."""
    depth: dict[Expr, int] = {}
    for node in variant.reductions:
        if node.level < Level.ROW:
            below = [depth[inner] for inner in walk(node.args) if inner in depth]
            depth[node] = 1 + max(below, default=-1)
    rounds = 1 + max(depth.values(), default=-1)
    return tuple(tuple(node for node in depth if depth[node] == i) for i in range(rounds))


def emit(variant: Variant, arrays: Layout) -> list[str]:
    """The sources of a variant's kernels: one for each of its `phases`, and the one that writes the results."""
    rounds = phases(variant)
    return [_Writer(variant, arrays, i, rounds).source() for i in range(len(rounds) + 1)]


_SECTIONS = {Level.STEP: 2, Level.MODEL: 2, Level.TENSOR: 2, Level.ROW: 3, Level.ELEMENT: 4}


class _Writer:
    def __init__(self, variant: Variant, arrays: Layout, index: int, rounds: tuple[tuple[Expr, ...], ...]):
        self.variant, self.arrays = variant, arrays
        self.phase = rounds[index] if index < len(rounds) else ()
        self.known = frozenset(node for nodes in rounds[:index] for node in nodes)
        self.columns = {node: i for i, node in enumerate(node for nodes in rounds for node in nodes)}
        self.numbers: dict[Expr, int] = {}
        self.slots = {name: i for i, (name, _) in enumerate(arrays.arrays)}
        self.types = {name: STORAGE[storage] for name, storage in arrays.arrays}
        self.stores: list[tuple[str, Expr]] = []
        if index == len(rounds):
            self.stores = [("p", variant.parameter), *((f"state.{key}", new) for key, new in variant.states.items())]
        self.rows = frozenset(node for node in variant.reductions if node.level == Level.ROW)

    def source(self) -> str:
        roots = [expression for _, expression in self.stores]
        roots += [node.args[0] for node in self.phase]
        nodes = list(walk(roots, stop=self.known))
        present = frozenset(nodes)
        rows = [node for node in nodes if node in self.rows]
        values = {node.data for node in nodes if node.op == "symbol" and node.data.startswith("row[")}
        used = [i for i in range(len(self.variant.row)) if f"row[{i}]" in values]
        loaded = [name for name in self.slots if any(node.op == "symbol" and node.data == name for node in nodes)]
        touched = list(dict.fromkeys([*loaded, *(name for name, _ in self.stores)]))
        lines = [
            "def kernel(job):",
            "    chunks, tensors, values, partials, reduced = argument(job, 2), argument(job, 3), argument(job, 4), "
            "argument(job, 5), argument(job, 6)",
            "    while True:",
            "        chunk = claim(job)",
            "        if chunk >= argument(job, 1):",
            "            return",
            "        tensor = argument(chunks, 3 * chunk)",
            "        start = argument(chunks, 3 * chunk + 1)",
            "        count = argument(chunks, 3 * chunk + 2)",
            f"        entry = tensors + {8 * self.arrays.columns} * tensor",
        ]
        for name in touched:
            address = f"argument(entry, {FIRST_ADDRESS + self.slots[name]})"
            lines.append(f"        {_variable(name)}_at = {address} + {self.types[name][1]} * start")
        if used:
            width = 8 * len(self.variant.row)
            lines.append(f"        row = values + {width} * argument(entry, {ROW_OF_VALUES})")
        lines += [f"        row_{i} = real(value(row, {i}))  # {text(self.variant.row[i])}" for i in used]
        for node, column in self.columns.items():
            if node in self.known and node in present:
                lines.append(
                    f"        {self.text(node)} = real(value(reduced, {len(self.columns)} * tensor + {column}))"
                )
        lines += self.computed(nodes, Level.TENSOR, 8)
        lines += [f"        {self.partial(i)} = 0.0" for i in range(len(self.phase))]
        indent = 8
        if rows:
            lines.append(f"        length = argument(entry, {ROW_LENGTH})")
            # No range with a step: that one can raise, and what can raise needs the interpreter.
            lines += ["        first = 0", "        while first < count:"]
            indent = 12
            for node in rows:
                lines += self.row_reduction(node, indent)
            lines += self.computed(nodes, Level.ROW, indent)
            lines.append(" " * indent + "for i in range(first, first + length):")
        else:
            lines.append(" " * indent + "for i in range(count):")
        indent += 4
        lines += [" " * indent + self.load(name) for name in loaded]
        lines += self.computed(nodes, Level.ELEMENT, indent)
        for i, node in enumerate(self.phase):
            lines.append(f"{' ' * indent}{self.partial(i)} = accumulate({self.partial(i)}, {self.text(node.args[0])})")
        for name, expression in self.stores:
            slot, (kind, _) = self.slots[name], self.types[name]
            lines.append(f"{' ' * indent}store_{kind}_{slot}({_variable(name)}_at, i, {self.text(expression)})")
        if rows:
            lines.append("            first += length")
        for i in range(len(self.phase)):
            lines.append(f"        put(partials, {len(self.phase)} * chunk + {i}, {self.partial(i)})")
        return "\n".join(lines) + "\n"

    def partial(self, i: int) -> str:
        return f"partial_{i}"

    def load(self, name: str) -> str:
        return f"{_variable(name)} = real(load_{self.types[name][0]}_{self.slots[name]}({_variable(name)}_at, i))"

    def row_reduction(self, node: Expr, indent: int) -> list[str]:
        """A loop of its own over the row, whose elements stay in cache for the loop that follows."""
        inside = list(walk(node.args, stop=self.known))
        names = [name for name in self.slots if any(n.op == "symbol" and n.data == name for n in inside)]
        space, deeper = " " * indent, " " * (indent + 4)
        target = self.text(node)
        lines = self.computed(inside, Level.ROW, indent)
        lines += [f"{space}{target}_sum = 0.0", f"{space}for i in range(first, first + length):"]
        lines += [deeper + self.load(name) for name in names]
        lines += self.computed(inside, Level.ELEMENT, indent + 4)
        lines.append(f"{deeper}{target}_sum = accumulate({target}_sum, {self.text(node.args[0])})")
        scale = " / length" if node.op == "mean" else ""
        lines.append(f"{space}{target} = real({target}_sum{scale})")
        return lines

    def computed(self, nodes: Iterable[Expr], level: Level, indent: int) -> list[str]:
        """Assignments for the nodes of a section: those of ``level``, or of any level up to TENSOR for the first."""
        section = _SECTIONS[level]
        lines: list[str] = []
        for node in nodes:
            if _SECTIONS[node.level] != section or node in self.known or node in self.rows:
                continue
            if node.op == "constant" and not isinstance(node.data, bool):
                lines.append(f"{' ' * indent}{self.text(node)} = real({_number(node.data)})")
            elif node.args:
                text = NUMBA[node.op].format(*(self.text(arg) for arg in node.args))
                lines.append(f"{' ' * indent}{self.text(node)} = {text}")
        return lines

    def text(self, node: Expr) -> str:
        """The variable that holds a node's value."""
        if node.op == "symbol":
            return _variable(node.data)
        if node.op == "constant" and isinstance(node.data, bool):
            return repr(node.data)
        number = self.numbers.setdefault(node, len(self.numbers))
        kind = "c" if node.op == "constant" else "r" if OPS[node.op].kind == "reduction" else "x"
        return f"{kind}{number}"


# What a kernel calls its own variables and the words it uses, so that no state may.
_TAKEN = frozenset(
    {"p", "g", "i", "job", "chunk", "chunks", "tensor", "tensors", "values", "partials", "reduced", "start", "count"}
    | {"entry", "row", "length", "first", "argument", "value", "real", "claim", "call", "put", "accumulate", "select"}
    | {"power", "absolute", "sqrt", "exp", "log", "sign", "maximum", "minimum", "float"}
)


def _variable(name: str) -> str:
    """A symbol's name as a Python identifier: ``state.exp_avg`` becomes ``exp_avg``, ``row[3]`` ``row_3``."""
    if name.startswith("row["):
        return f"row_{name[4:-1]}"
    if not name.startswith("state."):
        return name
    plain = re.sub(r"\W", "_", name[6:])
    return f"{plain}_" if plain in _TAKEN or re.match(r"\d|[xcr]\d|row_|partial_|load_|store_", plain) else plain


def _number(value: float) -> str:
    return repr(value) if abs(value) < float("inf") else f"float('{value}')"
