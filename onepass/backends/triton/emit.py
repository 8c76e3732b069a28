"""Write variants as the Python source of kernels that Triton compiles.

``ALIGN`` is what addresses are multiples of, in bytes: a table of integers does not say it. One program instance takes
one chunk. Full blocks of elements go without a mask, so that 16 bytes are moved at once;
what is left of a chunk goes with one. Where rows matter, a block is a tile of so many rows by so many columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onepass.backends.tables.writing import FIRST_ADDRESS, ROW_LENGTH, ROW_OF_VALUES, Layout, Phase, layout, literal
from onepass.compiler import Variant, text, walk
from onepass.lang import Expr, Level

# Elements that a program instance takes at once.
BLOCK = 1024

TRITON: dict[str, str] = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "divide({}, {})",
    "pow": "power({}, {})",
    "mod": "remainder({}, {})",
    "neg": "{} * -1.0",
    "absolute": "tl.abs({})",
    "sqrt": "root({})",
    "exp": "exponential({})",
    "log": "logarithm({})",
    "sign": "sign({})",
    "maximum": "larger({}, {})",
    "minimum": "smaller({}, {})",
    "lt": "{} < {}",
    "le": "{} <= {}",
    "gt": "{} > {}",
    "ge": "{} >= {}",
    "eq": "{} == {}",
    "ne": "{} != {}",
    "and": "{} & {}",
    "or": "{} | {}",
    "where": "tl.where({}, {}, {})",
    "sum": "total({}, {})",
    "mean": "total({}, {})",
}

_TYPES = {"float32": "tl.float32", "float64": "tl.float64", "bfloat16": "bfloat16", "float16": "tl.float16"}

HEADER = """\
import triton
import triton.language as tl

from onepass.backends.triton.words import (
    bfloat16, divide, exponential, larger, logarithm, narrow, power, remainder, root, sign, smaller, widen,
)
"""

_ARGUMENTS = "chunk, tensor, start, count, entry, values, partials, reduced, ALIGN: tl.constexpr"


@dataclass(frozen=True)
class Tiled(Layout):
    """A layout, and how many columns the tiles of row reductions have.

    Attributes:
        tile: 16, 128 or 1024.
    """

    tile: int = BLOCK


def tiled(storage: Mapping[str, str], tile: int = BLOCK) -> Tiled:
    """As `onepass.backends.tables.writing.layout`, with tiles of so many columns."""
    plain = layout(storage)
    return Tiled(plain.arrays, plain.real, tile)


@dataclass(frozen=True)
class Part:
    """A variant as one of those that a kernel chooses from.

    Attributes:
        variant: the variant.
        choice: the number by which the device knows it; None if the host has chosen it.
        rounds: its phases, empty ones among them where another part needs more.
        slots: for each reduction, where its sum stands among those that a chunk leaves in its phase.
        columns: for each reduction, where it stands in a tensor's row of them.
        places: for each of the variant's step values, where it stands among the values of all parts.
    """

    variant: Variant
    choice: int | None
    rounds: tuple[tuple[Expr, ...], ...]
    slots: Mapping[Expr, int]
    columns: Mapping[Expr, int]
    places: tuple[int, ...]


def emit(parts: Sequence[Part], arrays: Tiled, width: int, widths: Sequence[int], columns: int) -> str:
    """The source of a module of kernels: ``phase_0``, ``phase_1``, ..., of which the last one writes the results.

    Args:
        parts: the variants to choose from.
        arrays: how the tensors are stored.
        width: how many step values a row has.
        widths: for each phase, how many partial sums a chunk leaves.
        columns: how many reductions there are for each tensor.
    """
    functions: list[str] = [HEADER]
    for index in range(len(widths) + 1):
        own = widths[index] if index < len(widths) else 0
        names: list[tuple[str, Part]] = []
        for part in parts:
            if index < len(widths) and not part.rounds[index]:
                continue
            name = f"elements_{index}" if part.choice is None else f"elements_{index}_{part.choice}"
            names.append((name, part))
            functions.append(_Writer(part, arrays, index, width, own, columns).source(name))
        functions.append(_kernel(index, names, arrays, index == len(widths), len(parts) > 1))
    return "\n\n".join(functions)


def _kernel(index: int, names: Sequence[tuple[str, Part]], arrays: Tiled, is_last: bool, many: bool) -> str:
    chooses = any(part.choice is not None for _, part in names)
    extra = "choices, found, guard, " if chooses else ""
    lines = [
        "@triton.jit",
        f"def phase_{index}(chunks, tensors, values, partials, reduced, {extra}ALIGN: tl.constexpr):",
        "    chunk = tl.program_id(0).to(tl.int64)",
        "    tensor = tl.load(chunks + 3 * chunk)",
        "    start = tl.load(chunks + 3 * chunk + 1)",
        "    count = tl.load(chunks + 3 * chunk + 2)",
        f"    entry = tensors + {arrays.columns} * tensor",
    ]
    call = "(chunk, tensor, start, count, entry, values, partials, reduced, ALIGN)"
    if not chooses:
        lines += [f"    {name}{call}" for name, _ in names]
        return "\n".join(lines) + "\n"
    indent = "    "
    if is_last:
        lines.append("    if (tl.load(found) <= 0) & (tl.load(guard) <= 0):")
        indent = "        "
    if many:
        lines.append(f"{indent}choice = tl.load(choices + tensor)")
        for name, part in names:
            lines += [f"{indent}if choice == {part.choice}:", f"{indent}    {name}{call}"]
    else:
        lines += [f"{indent}{name}{call}" for name, _ in names]
    return "\n".join(lines) + "\n"


class _Writer(Phase):
    operations = TRITON
    taken = frozenset(
        {"p", "g", "tl", "triton", "chunk", "tensor", "start", "count", "entry", "values", "partials", "reduced", "row"}
        | {"length", "first", "full", "lanes", "mask", "down", "across", "offset", "inside", "column", "divide", "root"}
        | {"power", "remainder", "exponential", "logarithm", "sign", "larger", "smaller", "widen", "narrow", "bfloat16"}
        | {"float", "range", "choice", "choices", "found", "guard"}
    )

    def __init__(self, part: Part, arrays: Tiled, index: int, width: int, partials: int, columns: int):
        super().__init__(part.variant, arrays, index, part.rounds)
        self.columns, self.places, self.part = dict(part.columns), part.places, part
        self.width, self.partials, self.reductions = width, partials, columns
        self.tile = arrays.tile
        self.real = f"tl.{arrays.real}"

    def source(self, name: str) -> str:
        lines = ["@triton.jit", f"def {name}({_ARGUMENTS}):"]
        for array in self.touched:
            pointer = f"tl.pointer_type({self.type_of(array)})"
            address = f"tl.load(entry + {FIRST_ADDRESS + self.slots[array]}).to({pointer})"
            lines.append(f"    {self.variable(array)}_at = {address} + start")
        if self.used:
            lines.append(f"    row = values + {self.width} * tl.load(entry + {ROW_OF_VALUES})")
        for i in self.used:
            value = f"tl.load(row + {self.places[i]}).to({self.real})"
            lines.append(f"    row_{i} = {value}  # {text(self.variant.row[i])}")
        present = frozenset(self.nodes)
        for node, column in self.columns.items():
            if node in self.known and node in present:
                value = f"tl.load(reduced + {self.reductions} * tensor + {column})"
                lines.append(f"    {self.text(node)} = {value}.to({self.real})")
        lines += self.computed(self.nodes, Level.TENSOR, 4)
        lines += self.by_rows() if self.rows else self.by_elements()
        for i, node in enumerate(self.phase):
            place = f"partials + {self.partials} * chunk + {self.part.slots[node]}"
            lines.append(f"    tl.store({place}, tl.sum(partial_{i}))")
        return "\n".join(lines) + "\n"

    def by_elements(self) -> list[str]:
        lines = [f"    lanes = tl.arange(0, {BLOCK})"]
        lines += [f"    partial_{i} = tl.zeros(({BLOCK},), tl.float64)" for i in range(len(self.phase))]
        lines += [f"    full = count // {BLOCK} * {BLOCK}", f"    for first in range(0, full, {BLOCK}):"]
        lines += self.places_of(self.touched, "tl.multiple_of({}_at + (first + lanes), [ALIGN])", 8)
        lines += self.elements("", 8)
        lines += ["    if full < count:", "        mask = lanes < count - full"]
        lines += self.places_of(self.touched, "tl.multiple_of({}_at + (full + lanes), [ALIGN])", 8)
        return lines + self.elements(", mask=mask", 8)

    def by_rows(self) -> list[str]:
        shape = f"({BLOCK // self.tile}, {self.tile})"
        lines = [
            f"    length = tl.multiple_of(tl.load(entry + {ROW_LENGTH}), ALIGN)",
            f"    down = tl.arange(0, {BLOCK // self.tile})[:, None]",
            f"    across = tl.arange(0, {self.tile})[None, :]",
        ]
        lines += [f"    partial_{i} = tl.zeros({shape}, tl.float64)" for i in range(len(self.phase))]
        lines += [
            f"    for first in range(0, count, {BLOCK // self.tile} * length):",
            "        offset = first + down * length",
            "        inside = offset < count",
        ]
        for node in self.rows:
            within = list(walk(node.args, stop=self.known))
            target = self.text(node)
            lines += self.computed(within, Level.ROW, 8)
            lines.append(f"        {target}_sum = tl.zeros({shape}, tl.float64)")
            lines += self.columns_of_row(self.names_in(within))
            lines += [f"            {self.load(name, ', mask=mask')}" for name in self.names_in(within)]
            lines += self.computed(within, Level.ELEMENT, 12)
            lines.append(f"            {target}_sum += tl.where(mask, {self.text(node.args[0])}.to(tl.float64), 0.0)")
            scale = " / length.to(tl.float64)" if node.op == "mean" else ""
            lines.append(f"        {target} = (tl.sum({target}_sum, 1)[:, None]{scale}).to({self.real})")
        lines += self.computed(self.nodes, Level.ROW, 8)
        return lines + self.columns_of_row(self.touched) + self.elements(", mask=mask", 12)

    def columns_of_row(self, names: Sequence[str]) -> list[str]:
        """The head of a loop over the rows of a tile."""
        lines = [
            f"        for column in range(0, length, {self.tile}):",
            "            mask = inside & (across < length - column)",
        ]
        return lines + self.places_of(names, "tl.multiple_of({}_at + (offset + column) + across, [1, ALIGN])", 12)

    def elements(self, mask: str, indent: int) -> list[str]:
        """Load, compute, add up and store; ``mask`` is what loads and stores have as a last argument."""
        space = " " * indent
        lines = [space + self.load(name, mask) for name in self.loaded]
        lines += self.computed(self.nodes, Level.ELEMENT, indent)
        for i, node in enumerate(self.phase):
            value = f"{self.text(node.args[0])}.to(tl.float64)"
            lines.append(f"{space}partial_{i} += {f'tl.where(mask, {value}, 0.0)' if mask else value}")
        for name, expression in self.stores:
            kind, value = self.type_of(name), self.text(expression)
            stored = f"narrow({value})" if kind == "bfloat16" else f"{value}.to({kind})"
            lines.append(f"{space}tl.store({self.variable(name)}_to, {stored}{mask})")
        return lines

    def places_of(self, names: Sequence[str], form: str, indent: int) -> list[str]:
        return [f"{' ' * indent}{self.variable(n)}_to = {form.format(self.variable(n))}" for n in names]

    def load(self, name: str, mask: str) -> str:
        variable, kind = self.variable(name), self.type_of(name)
        value = f"tl.load({variable}_to{f'{mask}, other=0' if mask else ''})"
        value = f"widen({value})" if kind == "bfloat16" else value
        converted = value if kind == self.real else f"{value}.to({self.real})"
        return f"{variable} = {converted}"

    def type_of(self, name: str) -> str:
        return _TYPES[self.arrays.arrays[self.slots[name]][1]]

    def number(self, value: float) -> str:
        return f"tl.full((), {literal(value)}, {self.real})"
