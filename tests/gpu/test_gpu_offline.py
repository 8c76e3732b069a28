"""Without a GPU: kernels compile for NVIDIA's and AMD's, move 16 bytes at once, spill nothing, and look as they did."""

import os
import re
from pathlib import Path

import interpreted
import pytest

import onepass
from onepass.optim import registry

pytestmark = interpreted.never

SNAPSHOTS = Path(__file__).parent.parent / "snapshots"
NVIDIA, OLDER, AMD = ("cuda", 90, 32), ("cuda", 80, 32), ("hip", "gfx942", 64)
POINTERS = dict.fromkeys(("chunks", "tensors", "choices", "roster", "count", "skipped", "extents", "counts"), "*i64")
POINTERS |= dict.fromkeys(("values", "partials", "reduced", "guard", "scalars", "hyper", "after"), "*fp64")
POINTERS |= dict.fromkeys(("found", "steps"), "*fp32")


def compiled(kernel, target, **constants):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from onepass.backends.triton import words

    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in constants else POINTERS[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in constants},
    )
    return compile(source, target=GPUTarget(*target), options=dict(words.OPTIONS))


def phases_of(source):
    from onepass.backends.triton.launch import module_of

    module = module_of(source)
    return [getattr(module, name) for name in sorted(vars(module)) if name.startswith("phase_")]


def source_of(name, dtype="float32", transforms=(), tile=1024):
    from onepass.backends.triton import emit
    from onepass.backends.triton.plan import plan_of

    program, variant = registry.typical_step(name, transforms)
    arrays = ("p", "g", *(f"state.{key}" for key in program.states))
    return plan_of(variant).source(emit.tiled(dict.fromkeys(arrays, dtype), tile))


CASES = {
    "adamw": ("adamw", "float32", (), 1024),
    "adamw in bfloat16": ("adamw", "bfloat16", (), 1024),
    "nadam in float64": ("nadam", "float64", (), 1024),
    "yogi in float16": ("yogi", "float16", (), 1024),
    "adamw with clip_norm": ("adamw", "float32", (onepass.clip_norm(1.0),), 1024),
    "centralized sgd": ("sgd", "float32", (onepass.centralize(),), 1024),
    "centralized sgd, short rows": ("sgd", "float32", (onepass.centralize(),), 16),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("align", [16, 1], ids=["aligned", "anywhere"])
def test_nvidias_kernels_move_sixteen_bytes_at_once_and_spill_nothing(case, align):
    bits = {"float32": "b32", "float64": "b64", "bfloat16": "b16", "float16": "b16"}[CASES[case][1]]
    for kernel in phases_of(source_of(*CASES[case])):
        binary = compiled(kernel, NVIDIA, ALIGN=align)
        assert len(binary.asm["cubin"]) > 0
        ptx = binary.asm["ptx"]
        assert ".local" not in ptx
        wide = re.findall(r"(?:ld|st)\.global\.v[24]\.b(?:32|64)", ptx)
        assert bool(wide) == (align == 16)
        if align == 1:
            assert re.findall(rf"ld\.global\.{bits}", ptx)
        # Addresses are computed in 64 bits.
        assert "mul.wide" in ptx or "shl.b64" in ptx
        assert not re.findall(r"ld\.global\S* \S+ \[%r\d", ptx)


@pytest.mark.parametrize("target", [OLDER, AMD], ids=["sm_80", "gfx942"])
@pytest.mark.parametrize("case", ["adamw", "adamw in bfloat16", "centralized sgd"])
def test_they_compile_for_other_gpus(case, target):
    for kernel in phases_of(source_of(*CASES[case])):
        assert len(compiled(kernel, target, ALIGN=16).asm["cubin" if target is OLDER else "hsaco"]) > 0


def chosen_on_the_device(name, transforms=()):
    from onepass.backends.triton import decide, emit

    program, _ = registry.typical_step(name, transforms)
    arrays = emit.tiled(dict.fromkeys(("p", "g", *(f"state.{key}" for key in program.states)), "float32"))
    return decide.plan_on_device(program, 2).source(arrays), decide.emit_rows(program, 2)


@pytest.mark.parametrize("target", [NVIDIA, AMD], ids=["sm_90", "gfx942"])
def test_kernels_that_choose_on_the_device_compile(target):
    from onepass.backends.triton import words
    from onepass.backends.triton.launch import module_of

    kernels, rows = chosen_on_the_device("radam")
    for kernel in phases_of(kernels):
        binary = compiled(kernel, target, ALIGN=16)
        if target is NVIDIA:
            assert ".local" not in binary.asm["ptx"]
            assert "ld.global.v4.b32" in binary.asm["ptx"]
    assert compiled(module_of(rows).rows, target, BLOCK=128).asm
    assert compiled(words.settle, target, SCALARS=1, COUNTS_SKIPS=True, BLOCK=128).asm
    constants = {"WIDTH": 2, "NODE": 1, "COLUMNS": 2, "COLUMN": 1, "MEAN": True, "BLOCK": 256}
    assert compiled(words.add_up, target, **constants).asm


def test_words_that_no_rule_of_the_library_uses_compile():
    @onepass.rule
    def every_word(g, p, s, t, lr, *, rate=0.3):
        scale = onepass.exp(-onepass.absolute(g)) + onepass.log(1 + p * p) + (1 + g * g) ** 0.75
        both = (g > -2.0) & (g <= 2.0) | (p >= 3.0)
        s = onepass.where(both, onepass.minimum(onepass.maximum(g, s), 1.5), rate * s)
        return lr * (onepass.sign(g) * scale + s + g % 0.5) * onepass.where(t < 4, 0.5, 1.0), s

    from onepass.backends.triton import emit
    from onepass.backends.triton.plan import plan_of
    from onepass.compiler import compile_rule

    program = compile_rule(every_word)
    variant = program.variant({"t": 1.0, "lr": 0.1, "rate": 0.3})
    for real in ("float32", "float64"):
        source = plan_of(variant).source(emit.tiled(dict.fromkeys(("p", "g", "state.s"), real)))
        for target in (NVIDIA, AMD):
            for kernel in phases_of(source):
                assert compiled(kernel, target, ALIGN=16).asm


WRITTEN = {
    "adamw.py": lambda: source_of("adamw"),
    "adamw_clip_norm_bfloat16.py": lambda: source_of("adamw", "bfloat16", (onepass.clip_norm(1.0),)),
    "sgd_centralized.py": lambda: source_of("sgd", "float32", (onepass.centralize(),)),
    "radam_on_device.py": lambda: chosen_on_the_device("radam")[0],
    "radam_step_values.py": lambda: chosen_on_the_device("radam")[1],
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_emitted_source_is_the_one_that_was_reviewed(name):
    """`make snapshots` writes what is emitted now."""
    path = SNAPSHOTS / f"{name}.txt"
    source = WRITTEN[name]()
    if os.environ.get("ONEPASS_WRITE_SNAPSHOTS") == "1":
        path.write_text(source)
    assert source == path.read_text(), f"{path} is another: see with `make snapshots` and git diff how"
