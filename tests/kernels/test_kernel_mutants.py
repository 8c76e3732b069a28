"""Test the tests: kernels that are wrong on purpose, each of which the parity check must refuse."""

import re

import pytest
import torch
from mutants import CUTS, SUBJECTS, check, refused

import onepass
from onepass.backends.cpu import compile, emit, launch
from onepass.backends.tables import bucket, writing

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    """A cache of its own on disk and in memory, so that no mutant gets out and no sound kernel hides one."""
    monkeypatch.setenv("ONEPASS_CACHE_DIR", str(tmp_path))
    launch.kernels.cache_clear()
    yield
    launch.kernels.cache_clear()


def rewrite(monkeypatch, change):
    """Have each kernel's source changed after it is written; it must really change."""
    changed = []

    def mutated(variant, arrays):
        sources = emit.emit(variant, arrays)
        results = [change(source) for source in sources]
        changed.append(results != sources)
        return results

    monkeypatch.setattr(launch, "emit", mutated)
    return changed


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_is_not_broken_passes(subject):
    check(subject)


@pytest.mark.parametrize(
    ("op", "text", "subject"),
    [
        ("sub", "{1} - {0}", "adamw"),
        ("div", "{1} / {0}", "adamw"),
        ("add", "{0} - {1}", "adamw"),
        ("mul", "{0} + {1}", "adamw"),
        ("sqrt", "{}", "adamw"),
        ("maximum", "minimum({}, {})", "amsgrad"),
        ("minimum", "maximum({}, {})", "clipped"),
        ("gt", "{} < {}", "centralized"),
        ("where", "select({0}, {2}, {1})", "centralized"),
    ],
)
def test_a_wrong_row_of_the_op_table(op, text, subject, monkeypatch):
    monkeypatch.setitem(emit.NUMBA, op, text)
    refused(subject)


@pytest.mark.parametrize("row", range(9))
def test_a_step_value_that_never_arrives(row, monkeypatch):
    """Among them the bias corrections: 1 in their place is what a kernel without them computes."""
    changed = rewrite(
        monkeypatch, lambda source: source.replace(f"row_{row} = real(value(row, {row}))", f"row_{row} = real(1.0)")
    )
    refused("adamw")
    assert any(changed)


@pytest.mark.parametrize("slot", [0, 2, 3], ids=["parameter", "exp_avg", "exp_avg_sq"])
def test_a_result_that_is_never_stored(slot, monkeypatch):
    changed = rewrite(monkeypatch, lambda source: re.sub(rf"\n +store_f32_{slot}\(.*", "", source))
    refused("adamw")
    assert any(changed)


def test_a_state_stored_in_anothers_place(monkeypatch):
    rewrite(monkeypatch, lambda source: source.replace("store_f32_2(exp_avg_at", "store_f32_2(exp_avg_sq_at"))
    refused("adamw")


@pytest.mark.parametrize("kind", CUTS)
@pytest.mark.parametrize("subject", ["adamw", "clipped"])
def test_a_wrong_chunk_table(kind, subject, monkeypatch):
    cut = bucket.Bucket._cut
    monkeypatch.setattr(bucket.Bucket, "_cut", lambda self: CUTS[kind](cut(self)).copy())
    refused(subject, shapes=((17,), (bucket.CHUNK + 9,)))


def test_a_partial_sum_that_is_lost(monkeypatch):
    sums = launch.Launch.sums
    monkeypatch.setattr(launch.Launch, "sums", lambda self, phase: {k: v * 0.999 for k, v in sums(self, phase).items()})
    refused("clipped")


def test_a_row_mean_that_is_a_sum(monkeypatch):
    rewrite(monkeypatch, lambda source: source.replace("_sum / length)", "_sum)"))
    refused("centralized")


def test_a_row_that_begins_at_the_first(monkeypatch):
    rewrite(
        monkeypatch, lambda source: source.replace("for i in range(first, first + length):", "for i in range(length):")
    )
    refused("centralized")


def test_bfloat16_rounded_by_truncation(monkeypatch):
    kind, seen, widen, _ = compile._FORMATS["bf16"]

    def truncate(builder, x):
        word = compile.ir.IntType(32)
        bits = builder.lshr(builder.bitcast(x, word), compile.ir.Constant(word, 16))
        return builder.trunc(bits, compile.ir.IntType(16))

    monkeypatch.setitem(compile._FORMATS, "bf16", (kind, seen, widen, truncate))
    refused("adamw", torch.bfloat16)


def test_bfloat16_rounded_half_up(monkeypatch):
    """One tie in 2**16 numbers: only a comparison that knows the exact value sees it."""
    kind, seen, widen, _ = compile._FORMATS["bf16"]

    def half_up(builder, x):
        word = compile.ir.IntType(32)
        bits = builder.add(builder.bitcast(x, word), compile.ir.Constant(word, 0x8000))
        return builder.trunc(builder.lshr(bits, compile.ir.Constant(word, 16)), compile.ir.IntType(16))

    monkeypatch.setitem(compile._FORMATS, "bf16", (kind, seen, widen, half_up))
    p = torch.nn.Parameter(torch.zeros(20, dtype=torch.bfloat16))
    opt = onepass.SGD([p], lr=1 + 2**-8)
    p.grad = -torch.ones_like(p)
    opt.step()
    assert (p != 1.0).all()


def test_float64_computed_in_float32(monkeypatch):
    sound = writing.layout
    monkeypatch.setattr(bucket, "layout", lambda storage: writing.Layout(sound(storage).arrays, "float32"))
    refused("adamw", torch.float64)


def test_a_step_that_counts_twice(monkeypatch):
    settle = bucket.Bucket.settle

    def twice(self):
        self.steps += 1
        settle(self)

    monkeypatch.setattr(bucket.Bucket, "settle", twice)
    with pytest.raises(AssertionError, match="state step"):
        check("adamw")
