"""Test the tests: GPU kernels that are wrong on purpose, each of which the parity check must refuse."""

import re

import interpreted
import pytest
import torch
from mutants import CUTS, SUBJECTS, check, refused

import onepass

pytestmark = interpreted.only

if interpreted.INTERPRETED:
    import triton.language as tl

    from onepass.backends.tables import bucket as tables
    from onepass.backends.triton import bucket, emit, launch, words


@pytest.fixture(autouse=True)
def workshop(tmp_path, monkeypatch):
    """A cache of its own on disk and in memory, so that no mutant gets out and no sound kernel hides one."""
    monkeypatch.setenv("ONEPASS_CACHE_DIR", str(tmp_path))
    sound = launch.module_of
    sound.cache_clear()
    yield
    sound.cache_clear()


def rewrite(monkeypatch, where, before, after):
    """Have what matches ``before`` in each kernel's source changed after it is written; it must really change."""
    sound = where.module_of
    changed = []

    def mutated(source):
        result = re.sub(before, after, source)
        changed.append(result != source)
        return sound(result)

    monkeypatch.setattr(where, "module_of", mutated)
    return changed


@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_is_not_broken_passes(subject):
    check(subject)


@pytest.mark.parametrize(
    ("op", "text", "subject"),
    [
        ("sub", "{1} - {0}", "adamw"),
        ("div", "divide({1}, {0})", "adamw"),
        ("add", "{0} - {1}", "adamw"),
        ("mul", "{0} + {1}", "adamw"),
        ("sqrt", "{}", "adamw"),
        ("maximum", "smaller({}, {})", "amsgrad"),
        ("minimum", "larger({}, {})", "clipped"),
        ("gt", "{} < {}", "centralized"),
        ("where", "tl.where({0}, {2}, {1})", "centralized"),
    ],
)
def test_a_wrong_row_of_the_op_table(op, text, subject, monkeypatch):
    monkeypatch.setitem(emit.TRITON, op, text)
    refused(subject)


@pytest.mark.parametrize("row", range(9))
def test_a_step_value_that_never_arrives(row, monkeypatch):
    changed = rewrite(monkeypatch, launch, rf"row_{row} = .*", f"row_{row} = tl.full((), 1.0, tl.float32)")
    refused("adamw")
    assert any(changed)


@pytest.mark.parametrize("name", ["p", "exp_avg", "exp_avg_sq"])
def test_a_result_that_is_never_stored(name, monkeypatch):
    changed = rewrite(monkeypatch, launch, rf"\n +tl\.store\({name}_to, .*", "")
    refused("adamw")
    assert any(changed)


def test_a_tail_without_its_mask(monkeypatch):
    """It then writes beyond the tensor's end, into what lies behind it."""
    base = torch.ones(64)
    p = torch.nn.Parameter(base[:17])
    changed = rewrite(monkeypatch, launch, "mask = lanes < count - full", "mask = lanes < 64")
    opt = onepass.SGD([p], lr=1.0, backend="triton")
    p.grad = torch.ones(64)[:17]
    opt.step()
    assert any(changed)
    assert not torch.equal(base[17:], torch.ones(47))


@pytest.mark.parametrize("kind", CUTS)
@pytest.mark.parametrize("subject", ["adamw", "clipped"])
def test_a_wrong_chunk_table(kind, subject, monkeypatch):
    cut = tables.Bucket._cut
    monkeypatch.setattr(tables.Bucket, "_cut", lambda self: CUTS[kind](cut(self)).copy())
    refused(subject, shapes=((17,), (bucket.Bucket.chunk + 9,)))


def test_partial_sums_that_are_lost(monkeypatch):
    sound = launch.Launch.reduce

    def reduce(self, phase):
        sound(self, phase)
        self.reduced.mul_(0.999)

    monkeypatch.setattr(launch.Launch, "reduce", reduce)
    refused("clipped")


def test_a_row_mean_that_is_a_sum(monkeypatch):
    changed = rewrite(monkeypatch, launch, r" / length\.to\(tl\.float64\)", "")
    refused("centralized")
    assert any(changed)


def test_a_row_that_begins_at_the_first(monkeypatch):
    rewrite(monkeypatch, launch, r"offset = first \+ down", "offset = first * 0 + down")
    refused("centralized", shapes=((200, 10),))


def test_bfloat16_rounded_by_truncation(monkeypatch):
    @words.triton.jit
    def truncate(x):
        return (x.to(tl.float32).to(tl.uint32, bitcast=True) >> 16).to(tl.uint16)

    monkeypatch.setattr(words, "narrow", truncate)
    refused("adamw", torch.bfloat16)


def test_float64_computed_in_float32(monkeypatch):
    sound = tables.layout
    monkeypatch.setattr(tables, "layout", lambda storage: emit.Layout(sound(storage).arrays, "float32"))
    refused("adamw", torch.float64)


@pytest.mark.parametrize("kind", ["a decision", "a count", "a step value"])
def test_what_the_device_decides_wrongly(kind, monkeypatch):
    before, after = {
        "a decision": (r"choice \+= tl", "choice += 0 * tl"),
        "a count": (r"tl\.float64\) \+ 1\.0", "tl.float64)"),
        "a step value": (r"values \+ (\d+) \* i \+ \d+", r"values + \1 * i + 0"),
    }[kind]
    changed = rewrite(monkeypatch, bucket, before, after)
    with pytest.raises(AssertionError):
        check("on the device", steps=6)
    assert any(changed)
