"""Write a variant as the Python source of a kernel that Numba can compile.

The threads share a table of chunks: a kernel claims the next one and goes over its elements in one loop. The mean of a
row is taken inside, where the row is still in cache.
"""

from __future__ import annotations

from onepass.backends.tables.writing import FIRST_ADDRESS, ROW_LENGTH, ROW_OF_VALUES, Layout, Phase, literal, phases
from onepass.compiler import Variant, text, walk
from onepass.lang import Expr, Level

# What a storage type is called in a kernel, and how many bytes it takes.
_TYPES = {"float32": ("f32", 4), "float64": ("f64", 8), "bfloat16": ("bf16", 2), "float16": ("f16", 2)}

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


def emit(variant: Variant, arrays: Layout) -> list[str]:
    """The sources of a variant's kernels: one for each of its `phases`, and the one that writes the results."""
    rounds = phases(variant)
    return [_Writer(variant, arrays, i, rounds).source() for i in range(len(rounds) + 1)]


class _Writer(Phase):
    operations = NUMBA
    taken = frozenset(
        {"p", "g", "i", "job", "chunk", "chunks", "tensor", "tensors", "values", "partials", "reduced", "start"}
        | {"count", "entry", "row", "length", "first", "argument", "value", "real", "claim", "call", "put"}
        | {"accumulate", "select", "power", "absolute", "sqrt", "exp", "log", "sign", "maximum", "minimum", "float"}
    )

    def source(self) -> str:
        nodes = self.nodes
        present = frozenset(nodes)
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
        for name in self.touched:
            address = f"argument(entry, {FIRST_ADDRESS + self.slots[name]})"
            lines.append(f"        {self.variable(name)}_at = {address} + {self.type_of(name)[1]} * start")
        if self.used:
            width = 8 * len(self.variant.row)
            lines.append(f"        row = values + {width} * argument(entry, {ROW_OF_VALUES})")
        lines += [f"        row_{i} = real(value(row, {i}))  # {text(self.variant.row[i])}" for i in self.used]
        for node, column in self.columns.items():
            if node in self.known and node in present:
                lines.append(
                    f"        {self.text(node)} = real(value(reduced, {len(self.columns)} * tensor + {column}))"
                )
        lines += self.computed(nodes, Level.TENSOR, 8)
        lines += [f"        {self.partial(i)} = 0.0" for i in range(len(self.phase))]
        indent = 8
        if self.rows:
            lines.append(f"        length = argument(entry, {ROW_LENGTH})")
            # No range with a step: that one can raise, and what can raise needs the interpreter.
            lines += ["        first = 0", "        while first < count:"]
            indent = 12
            for node in self.rows:
                lines += self.row_reduction(node, indent)
            lines += self.computed(nodes, Level.ROW, indent)
            lines.append(" " * indent + "for i in range(first, first + length):")
        else:
            lines.append(" " * indent + "for i in range(count):")
        indent += 4
        lines += [" " * indent + self.load(name) for name in self.loaded]
        lines += self.computed(nodes, Level.ELEMENT, indent)
        for i, node in enumerate(self.phase):
            lines.append(f"{' ' * indent}{self.partial(i)} = accumulate({self.partial(i)}, {self.text(node.args[0])})")
        for name, expression in self.stores:
            slot, (kind, _) = self.slots[name], self.type_of(name)
            lines.append(f"{' ' * indent}store_{kind}_{slot}({self.variable(name)}_at, i, {self.text(expression)})")
        if self.rows:
            lines.append("            first += length")
        for i in range(len(self.phase)):
            lines.append(f"        put(partials, {len(self.phase)} * chunk + {i}, {self.partial(i)})")
        return "\n".join(lines) + "\n"

    def partial(self, i: int) -> str:
        return f"partial_{i}"

    def load(self, name: str) -> str:
        variable, kind = self.variable(name), self.type_of(name)[0]
        return f"{variable} = real(load_{kind}_{self.slots[name]}({variable}_at, i))"

    def row_reduction(self, node: Expr, indent: int) -> list[str]:
        """A loop of its own over the row, whose elements stay in cache for the loop that follows."""
        inside = list(walk(node.args, stop=self.known))
        space, deeper = " " * indent, " " * (indent + 4)
        target = self.text(node)
        lines = self.computed(inside, Level.ROW, indent)
        lines += [f"{space}{target}_sum = 0.0", f"{space}for i in range(first, first + length):"]
        lines += [deeper + self.load(name) for name in self.names_in(inside)]
        lines += self.computed(inside, Level.ELEMENT, indent + 4)
        lines.append(f"{deeper}{target}_sum = accumulate({target}_sum, {self.text(node.args[0])})")
        scale = " / length" if node.op == "mean" else ""
        lines.append(f"{space}{target} = real({target}_sum{scale})")
        return lines

    def type_of(self, name: str) -> tuple[str, int]:
        return _TYPES[self.arrays.arrays[self.slots[name]][1]]

    def number(self, value: float) -> str:
        return f"real({literal(value)})"
