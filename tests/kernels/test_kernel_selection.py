"""Which backend serves, what happens without a compiler, and the cache of compiled kernels."""

import warnings
from functools import cache

import pytest
import scripts
import torch

import onepass
from onepass.backends.cpu import compile, launch, machine
from onepass.backends.tables import cache as folder


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder of its own, and nothing in memory."""
    monkeypatch.setenv("ONEPASS_CACHE_DIR", str(tmp_path))
    launch.kernels.cache_clear()
    folder.say_once.cache_clear()
    yield tmp_path
    launch.kernels.cache_clear()
    folder.say_once.cache_clear()


def stepped(**options):
    p = torch.nn.Parameter(torch.linspace(-1, 1, 20))
    opt = onepass.AdamW([p], **options)
    for _ in range(3):
        p.grad = p.detach().cos()
        opt.step()
    return p.detach(), opt


def test_the_kernels_serve_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("ONEPASS_BACKEND", raising=False)
    assert stepped()[1]._runner().session is not None
    assert stepped(backend="cpu")[1]._runner().session is not None
    assert stepped(backend="reference")[1]._runner().session is None
    monkeypatch.setenv("ONEPASS_BACKEND", "reference")
    assert stepped()[1]._runner().session is None
    # What is said in the code is nearer than what is said around it.
    assert stepped(backend="cpu")[1]._runner().session is not None


def test_unknown_backends_are_refused_at_once(monkeypatch):
    params = [torch.nn.Parameter(torch.ones(2))]
    with pytest.raises(ValueError, match=r"backend='gpu' is no backend: choose one of cpu, triton, reference"):
        onepass.AdamW(params, backend="gpu")
    monkeypatch.setenv("ONEPASS_BACKEND", "fast")
    with pytest.raises(ValueError, match=r"ONEPASS_BACKEND='fast' is no backend: choose one of cpu, triton, reference"):
        onepass.AdamW(params)


WITHOUT = """
sys.modules[{name!r}] = None
import onepass
caught = []
warnings.showwarning = lambda message, *rest: caught.append(str(message))
warnings.simplefilter("always")
for _ in range(2):
    params = model()
    walk(params, onepass.AdamW(params, transforms=[onepass.clip_norm(1.0)]))
print(caught)
print(digest(params))
params = model()
before = digest(params)
try:
    walk(params, onepass.AdamW(params, backend="cpu"))
except RuntimeError as error:
    print(error)
print(digest(params) == before)
"""
REFERENCE = """
import onepass
params = model()
walk(params, onepass.AdamW(params, transforms=[onepass.clip_norm(1.0)], backend="reference"))
print("numba" in sys.modules)
print(digest(params))
"""


@cache
def reference_result():
    loaded, result = scripts.run(REFERENCE)
    assert loaded == "False"
    return result


@pytest.mark.parametrize("name", ["numba", "llvmlite"])
def test_without_a_compiler_the_reference_runs_and_says_so_once(name):
    caught, result, refusal, untouched = scripts.run(WITHOUT.format(name=name))
    expected = reference_result()
    assert result == expected
    assert caught.count("onepass:") == 1
    assert "the reference runs, not a compiled kernel" in caught
    assert f"{name} cannot be imported: pip install numba" in caught
    assert refusal.startswith("backend='cpu' cannot serve: ")
    assert untouched == "True"


def damage(path, kind):
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut in half": content[: len(content) // 2],
            "one bit flipped": content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
        }[kind]
    )


@pytest.mark.parametrize("kind", ["empty", "cut in half", "one bit flipped"])
def test_a_damaged_file_in_the_cache_is_compiled_again(kind, own_cache, monkeypatch):
    expected, _ = stepped()
    (file,) = own_cache.glob("*.o")
    sound = file.read_bytes()
    damage(file, kind)
    assert file.read_bytes() != sound
    launch.kernels.cache_clear()
    again, _ = stepped()
    assert torch.equal(again, expected)
    # Mended, so that the next process need not compile it.
    launch.kernels.cache_clear()
    monkeypatch.setattr(compile, "compile_source", lambda *args: pytest.fail("compiled what is in the cache"))
    assert torch.equal(stepped()[0], expected)


def test_a_folder_that_cannot_be_written_to_is_said_once_and_does_no_harm(own_cache, monkeypatch):
    expected, _ = stepped()
    occupied = own_cache / "file"
    occupied.write_text("no folder")
    monkeypatch.setenv("ONEPASS_CACHE_DIR", str(occupied / "below"))
    launch.kernels.cache_clear()
    with pytest.warns(UserWarning, match="Set ONEPASS_CACHE_DIR to a folder that can be written to") as caught:
        result, _ = stepped()
    assert len(caught) == 1
    assert torch.equal(result, expected)
    launch.kernels.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(stepped()[0], expected)


STEPPED = """
import onepass
params = model()
walk(params, onepass.AdamW(params, transforms=[onepass.clip_norm(1.0)]))
print(digest(params))
"""


def test_two_processes_may_compile_the_same_kernel_at_once(tmp_path):
    both = [scripts.start(STEPPED, ONEPASS_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert len({out for out, _ in results}) == 1
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".o", ".o", ".py", ".py"]
    # What they left can be used, and needs no compiler.
    result, loaded = scripts.run(STEPPED + 'print("numba" in sys.modules)', ONEPASS_CACHE_DIR=str(tmp_path))
    assert [result] == results[0][0].split()
    assert loaded == "False"


def test_after_the_first_step_nothing_is_compiled_or_loaded(own_cache, monkeypatch):
    calls = []
    for module, name in ((machine, "load"), (compile, "compile_source")):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, f=function, n=name: calls.append(n) or f(*args))
    params = [torch.nn.Parameter(torch.ones(n)) for n in (3, 40)]
    opt = onepass.AdamW(params, transforms=[onepass.clip_norm(1.0)])

    def step(*grads):
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        opt.step()

    step(torch.ones(3), torch.ones(40))
    # The norm's kernel, and the one that writes.
    assert calls == ["load", "compile_source"] * 2
    calls.clear()
    step(torch.ones(3), torch.ones(40))
    step(torch.ones(3), None)
    step(None, torch.ones(80)[::2])
    opt.param_groups[0].update(lr=0.5, betas=(0.5, 0.6))
    opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 1.0})
    step(torch.ones(3), torch.ones(40))
    params[0].data = torch.ones(3)
    step(torch.ones(3), torch.ones(40))
    # Another optimizer of the same kind has its kernels already.
    other = torch.nn.Parameter(torch.ones(5, 5))
    second = onepass.AdamW([other], transforms=[onepass.clip_norm(2.0)])
    other.grad = torch.ones(5, 5)
    second.step()
    assert calls == []
