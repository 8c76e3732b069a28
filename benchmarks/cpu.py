"""What the CPU kernels cost, against torch, against the memory's own speed, and against other libraries.

Run with ``make bench``; ``python -m benchmarks.cpu --only small`` runs the measures whose name has "small" in it.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

import onepass
from benchmarks.report import render
from benchmarks.runner import Result, compare, interleave, measured_in_new_process, write

LARGE = [(16 * 2**20,)] * 4  # 64 M parameters in 4 tensors
MANY = [(2000,)] * 600  # 1.2 M parameters in 600 tensors
DIGITS = [(8, 1, 3, 3), (8,), (16, 8, 3, 3), (16,), (64, 256), (64,), (10, 64), (10,)]
# The states of each rule, which decide what it must move; see `onepass list`.
ELEMENTWISE = ("sgd", "adagrad", "rmsprop", "adadelta", "adam", "adamw", "adamax", "nadam", "radam", "yogi")
UNFUSED = ("RAdam", "NAdam", "Adamax", "RMSprop", "Adadelta", "Adagrad")


def filled(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    """Parameters of these shapes with gradients."""
    params = [torch.nn.Parameter(torch.full(shape, 0.5, dtype=dtype)) for shape in shapes]
    for p in params:
        p.grad = torch.full_like(p, 1e-3)
    return params


def floor(states: int) -> type[onepass.Optimizer]:
    """A rule that loads and stores what one with so many states must, and adds one thing to each."""

    @onepass.rule
    def floor_0(g):
        return g

    @onepass.rule
    def floor_1(g, m):
        return m, m + g

    @onepass.rule
    def floor_2(g, m, v):
        return m, m + g, v + g

    return onepass.optimizer((floor_0, floor_1, floor_2)[states])


def large_against_torch() -> Iterator[Result]:
    contenders = {
        "onepass": onepass.AdamW(filled(LARGE)).step,
        "torch fused": torch.optim.AdamW(filled(LARGE), fused=True).step,
    }
    times = interleave(contenders, 25)
    yield compare("AdamW, 64 M parameters in 4 tensors", times, "onepass", "torch fused", 1.05)


def large_against_the_floor() -> Iterator[Result]:
    states = {d.name: len(d.states) for d in onepass.describe()}
    for name in ELEMENTWISE:
        contenders = {
            "onepass": onepass.create(name, filled(LARGE)).step,
            "floor": floor(states[name])(filled(LARGE), lr=1e-3).step,
        }
        times = interleave(contenders, 15)
        yield compare(f"{name}, 64 M parameters", times, "onepass", "floor", 1.15)
        del contenders
        gc.collect()


def large_rules_without_a_fused_form() -> Iterator[Result]:
    for name in UNFUSED:
        theirs = getattr(torch.optim, name)
        contenders: dict[str, Callable[[], Any]] = {
            "onepass": getattr(onepass, name)(filled(LARGE)).step,
            "torch foreach": theirs(filled(LARGE), foreach=True).step,
            "torch for-loop": theirs(filled(LARGE), foreach=False).step,
        }
        if name == "Adagrad":
            contenders["torch fused"] = theirs(filled(LARGE), fused=True).step
        # Past the steps that RAdam and its kin take while they warm up.
        times = interleave(contenders, 5, warmup=8)
        fastest = min((c for c in contenders if c != "onepass"), key=lambda c: statistics.median(times[c]))
        target = None if fastest == "torch fused" else 0.25
        yield compare(f"{name}, 64 M parameters", times, "onepass", fastest, target)
        del contenders
        gc.collect()


def many_small_tensors() -> Iterator[Result]:
    contenders = {
        "onepass": onepass.AdamW(filled(MANY)).step,
        "torch fused": torch.optim.AdamW(filled(MANY), fused=True).step,
    }
    times = interleave(contenders, 200)
    yield compare("AdamW, 600 tensors, 1.2 M parameters", times, "onepass", "torch fused", 0.40)


def small_model() -> Iterator[Result]:
    contenders = {
        "onepass": onepass.AdamW(filled(DIGITS)).step,
        "torch fused": torch.optim.AdamW(filled(DIGITS), fused=True).step,
    }
    times = interleave(contenders, 200, inner=20)
    yield compare("AdamW, the digits CNN (8 small tensors)", times, "onepass", "torch fused", 0.80)


def whole_iteration() -> Iterator[Result]:
    def iteration(make: Callable[[Any], Any] | None) -> Callable[[], Any]:
        torch.manual_seed(0)
        layers = [layer for _ in range(120) for layer in (torch.nn.Linear(182, 182), torch.nn.ReLU())]
        model = torch.nn.Sequential(*layers)
        x = torch.randn(32, 182)
        opt = make(model.parameters()) if make else None

        def run() -> None:
            model.zero_grad()
            model(x).square().mean().backward()
            if opt:
                opt.step()

        return run

    contenders = {
        "no optimizer": iteration(None),
        "onepass": iteration(onepass.AdamW),
        "torch fused": iteration(lambda params: torch.optim.AdamW(params, fused=True)),
    }
    times = interleave(contenders, 80, warmup=5)
    measure = "AdamW, what it adds to an iteration of a 240-tensor MLP of 4 M parameters"
    yield compare(measure, times, "onepass", "torch fused", 0.70, base="no optimizer")


def clipping() -> Iterator[Result]:
    def clipped(shapes: Sequence[tuple[int, ...]]) -> Callable[[], Any]:
        params = filled(shapes)
        opt = torch.optim.AdamW(params, fused=True)

        def run() -> None:
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            opt.step()

        return run

    for name, shapes, rounds in (("64 M parameters", LARGE, 25), ("600 tensors", MANY, 100)):
        contenders = {
            "onepass": onepass.AdamW(filled(shapes), transforms=[onepass.clip_norm(1.0)]).step,
            "torch clip_grad_norm_ + fused": clipped(shapes),
        }
        times = interleave(contenders, rounds)
        yield compare(f"AdamW with clip_norm, {name}", times, "onepass", "torch clip_grad_norm_ + fused", 0.60)


def bfloat16() -> Iterator[Result]:
    contenders = {
        "onepass": onepass.AdamW(filled(LARGE, torch.bfloat16)).step,
        "onepass float32": onepass.AdamW(filled(LARGE)).step,
    }
    times = interleave(contenders, 25)
    yield compare("AdamW in bfloat16, 64 M parameters", times, "onepass", "onepass float32", 0.65)


def peak_memory() -> Iterator[Result]:
    opt = onepass.AdamW(filled(LARGE))
    opt.step()
    Path("/proc/self/clear_refs").write_text("5")  # The peak so far becomes what is in use now.
    before = _status("VmRSS")
    for _ in range(3):
        opt.step()
    used = max(0, _status("VmHWM") - before) / 1024
    yield Result("Peak memory of a step, 64 M parameters", "", used, None, None, None, None, 8.0, "MB")


def gradient_release() -> Iterator[Result]:
    # Blocks given back go to the system at once, so that memory in use is what tensors hold.
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    without, released = (
        [measured_in_new_process(f"RELEASE = {release}\n{_ITERATION}", environment) for _ in range(3)]
        for release in (False, True)
    )
    measure = "Peak memory of an iteration beyond parameters and states, a 64-layer MLP of 64 M parameters, AdamW"
    yield compare(measure, {"released": released, "not released": without}, "released", "not released", None, unit="MB")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


_ITERATION = """
from pathlib import Path
import torch, onepass
model = torch.nn.Sequential(*[layer for _ in range(64) for layer in (torch.nn.Linear(1000, 1000), torch.nn.ReLU())])
opt = onepass.AdamW(model.parameters())
handle = onepass.release_gradients(model, opt) if RELEASE else None
x = torch.randn(8, 1000)
def memory(key):
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key)]
    return int(line.split()[1]) / 1024
def iteration():
    opt.zero_grad()
    model(x).square().mean().backward()
    opt.step()
for _ in range(2):
    iteration()
opt.zero_grad()
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
for _ in range(3):
    iteration()
print(memory("VmHWM") - before)
"""
_FIRST_STEP = """
import time, torch, onepass
params = [torch.nn.Parameter(torch.zeros(10, 10)) for _ in range(4)]
for p in params:
    p.grad = torch.ones(10, 10)
opt = onepass.AdamW(params)
start = time.perf_counter()
opt.step()
print(time.perf_counter() - start)
"""
_IMPORT = """
import time, torch
start = time.perf_counter()
import onepass
print(time.perf_counter() - start)
"""


def new_processes() -> Iterator[Result]:
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as folder:
            cold.append(measured_in_new_process(_FIRST_STEP, {"ONEPASS_CACHE_DIR": folder}))
            warm.append(measured_in_new_process(_FIRST_STEP, {"ONEPASS_CACHE_DIR": folder}))
    imports = [measured_in_new_process(_IMPORT) for _ in range(7)]
    for name, seconds, target in (
        ("First step of a process, nothing compiled yet", cold, 3.0),
        ("First step of a process, kernels in the cache", warm, 0.3),
        ("import onepass, beyond import torch", imports, 0.15),
    ):
        yield Result(name, "", statistics.median(seconds), None, None, None, None, target, "s")


def rivals() -> Iterator[Result]:
    """Other libraries, where they are installed: ``pip install 'onepass[bench]'``."""
    for name, theirs in _other_libraries():
        contenders = {"onepass": onepass.create(name, filled(LARGE)).step, theirs[0]: theirs[1](filled(LARGE)).step}
        # Past the steps that RAdam and its kin take while they warm up.
        times = interleave(contenders, 5, warmup=8)
        yield compare(f"{name}, 64 M parameters", times, "onepass", theirs[0], None)
        del contenders
        gc.collect()


def _other_libraries() -> Iterator[tuple[str, tuple[str, Callable[[Any], Any]]]]:
    try:
        import pytorch_optimizer
    except ImportError:
        print("pytorch_optimizer is not installed: left out")
    else:
        yield "yogi", ("pytorch_optimizer Yogi", lambda params: pytorch_optimizer.Yogi(params))
        yield "ranger", ("pytorch_optimizer Ranger", lambda params: pytorch_optimizer.Ranger(params))
    try:
        import optimi
    except ImportError:
        print("torch-optimi is not installed: left out")
    else:
        yield "adamw", ("optimi AdamW", lambda params: optimi.AdamW(params, lr=1e-3, foreach=True))
        yield "radam", ("optimi RAdam", lambda params: optimi.RAdam(params, lr=1e-3, foreach=True))
        yield "ranger", ("optimi Ranger", lambda params: optimi.Ranger(params, lr=1e-3, foreach=True))


MEASURES = (
    large_against_torch,
    large_against_the_floor,
    large_rules_without_a_fused_form,
    many_small_tensors,
    small_model,
    whole_iteration,
    clipping,
    bfloat16,
    peak_memory,
    gradient_release,
    new_processes,
    rivals,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the measures whose name contains this")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/cpu.jsonl"), help="JSON lines to append to"
    )
    parser.add_argument("--readme", action="store_true", help="put the table and the plot into the README")
    arguments = parser.parse_args()
    results: list[Result] = []
    for measure in MEASURES:
        if arguments.only in measure.__name__:
            for result in measure():
                results.append(result)
                ratio = f"{result.ratio:.2f} [{result.low:.2f}, {result.high:.2f}]" if result.ratio is not None else ""
                mark = {True: "reached", False: "MISSED", None: ""}[result.reached]
                target = "" if result.target is None else f"<= {result.target:g}"
                ours = f"{result.ours:9.3f} {result.unit:2}"
                print(f"{result.measure:75} {ours}  {ratio:20} {target:8} {mark:8} {result.against}", flush=True)
            gc.collect()
    write(results, arguments.out)
    if arguments.readme:
        render(results)


if __name__ == "__main__":
    main()
