"""Step values and step-level decisions on the device, so that the host need not know the step count."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product

from onepass.backends.tables.writing import literal, over_model, phases
from onepass.backends.triton.emit import HEADER, TRITON, Part
from onepass.backends.triton.plan import Plan, Sum, sum_of
from onepass.compiler import Program, Variant, on_host, text, walk
from onepass.lang import OPS, Expr, Level

# Decisions that depend on the step; each doubles the code of a kernel.
_MOST_DECISIONS = 4


@cache
def choices(program: Program, ndim: int) -> dict[int, Variant]:
    """The variants that steps of tensors of so many dimensions can call for, by their numbers: a bit a decision."""
    options: list[tuple[float, ...]] = []
    for decision in program.decisions:
        asked = {node.data for node in walk([decision]) if node.op == "symbol"}
        known = asked <= {"ndim"}
        options.append((float(on_host(decision, {"ndim": float(ndim)}, {})),) if known else (0.0, 1.0))
    if sum(len(each) > 1 for each in options) > _MOST_DECISIONS:
        raise RuntimeError(
            f"{program.name} with its transforms makes {len(options)} decisions that depend on the step, and a kernel "
            f"that decides on the device takes {_MOST_DECISIONS}: leave capturable=, fused= and skip_nonfinite= False"
        )
    return {sum(int(bit) << i for i, bit in enumerate(c)): program.variant_of(c) for c in product(*options)}


@cache
def plan_on_device(program: Program, ndim: int) -> Plan:
    """Kernels that choose among all the variants."""
    variants = choices(program, ndim)
    values = _values(variants.values())
    aligned = _aligned(list(variants.values()))
    slots: list[dict[Expr, int]] = [{} for _ in variants]
    columns: list[dict[Expr, int]] = [{} for _ in variants]
    sums: list[tuple[Sum, ...]] = []
    used = 0
    for i in range(len(aligned[0])):
        # What spans the model is one for all variants, and stands first; the rest each for itself.
        found: dict[object, Sum] = {}
        for variant, rounds in enumerate(aligned):
            shared = 0
            for node in rounds[i]:
                key: object = node
                if node.level == Level.MODEL:
                    key, shared = shared, shared + 1
                if key not in found:
                    found[key] = sum_of(node, used + len(found))
                slots[variant][node] = found[key].column - used
                columns[variant][node] = found[key].column
        used += len(found)
        sums.append(tuple(found.values()))
    parts = tuple(
        Part(variant, number, rounds, slots[i], columns[i], tuple(values.index_of(each) for each in variant.row))
        for i, ((number, variant), rounds) in enumerate(zip(variants.items(), aligned, strict=True))
    )
    return Plan(parts, tuple(sums), max(1, len(values)))


class _Values(list[Expr]):
    """The step values of all variants, each once. Expressions are told apart by identity: ``==`` builds one more."""

    def index_of(self, wanted: Expr) -> int:
        return next(i for i, each in enumerate(self) if each is wanted)


def _values(variants: object) -> _Values:
    return _Values(dict.fromkeys(each for variant in variants for each in variant.row))  # pyright: ignore


def _aligned(variants: Sequence[Variant]) -> list[tuple[tuple[Expr, ...], ...]]:
    """The phases of several variants, so that they come to each of the reductions over the model in the same one."""
    rounds = [phases(variant) for variant in variants]
    floors: list[int] = []
    while (later := [max(each) for each in zip(*map(over_model, rounds), strict=True)]) != floors:
        floors = later
        rounds = [phases(variant, floors) for variant in variants]
    most = max(map(len, rounds))
    return [(*each, *[()] * (most - len(each))) for each in rounds]


@cache
def emit_rows(program: Program, ndim: int) -> str:
    """The source of ``rows``: from counts and hyperparameters to step values, choices and scalar states, in float64.

    A lane is a tensor.
    """
    values = _values(choices(program, ndim).values())
    nodes = walk([*values, *program.decisions, *program.scalars.values()])
    names: dict[Expr, str] = {}
    lines = [
        "@triton.jit",
        "def rows(steps, scalars, hyper, roster, values, choices, after, count, BLOCK: tl.constexpr):",
        "    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)",
        "    number = tl.load(count)",
        "    mask = i < number",
        "    group = tl.load(roster + 2 * i, mask=mask, other=0)",
    ]
    width, scalars = len(program.hyperparameters), list(program.scalars)
    for node in nodes:
        name = names[node] = f"x{len(names)}"
        if node.op == "constant":
            value = repr(node.data) if isinstance(node.data, bool) else f"tl.full((), {literal(node.data)}, tl.float64)"
        elif node.op != "symbol":
            value = TRITON[node.op].format(*(names[arg] for arg in node.args))
        elif node.data == "t":
            value = "tl.load(steps + i, mask=mask, other=0.0).to(tl.float64) + 1.0"
        elif node.data == "ndim":
            value = f"tl.full((), {float(ndim)}, tl.float64)"
        elif node.data.startswith("state."):
            value = f"tl.load(scalars + {scalars.index(node.data[6:])} * number + i, mask=mask, other=0.0)"
        else:
            place = program.hyperparameters.index(node.data)
            value = f"tl.load(hyper + {width} * group + {place}, mask=mask, other=0.0)"
        comment = f"  # {node.data}" if node.op == "symbol" else ""
        lines.append(f"    {name} = {value}{comment}")
    for column, value in enumerate(values):
        place = f"values + {max(1, len(values))} * i + {column}"
        lines.append(f"    tl.store({place}, {_number(value, names)}, mask=mask)  # {text(value)}")
    lines.append("    choice = tl.zeros((BLOCK,), tl.int64)")
    for bit, decision in enumerate(program.decisions):
        lines.append(f"    choice += tl.where({names[decision]}, {1 << bit}, 0)  # {text(decision)}")
    lines.append("    tl.store(choices + i, choice, mask=mask)")
    for i, new in enumerate(program.scalars.values()):
        lines.append(f"    tl.store(after + {i} * number + i, {_number(new, names)}, mask=mask)")
    return f"{HEADER}\n\n" + "\n".join(lines) + "\n"


def _number(node: Expr, names: dict[Expr, str]) -> str:
    """A condition counts as 0 or 1, as it does on the host."""
    is_condition = node.op in OPS and OPS[node.op].kind in ("comparison", "logic")
    return f"tl.where({names[node]}, 1.0, 0.0).to(tl.float64)" if is_condition else names[node]
