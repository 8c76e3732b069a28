"""What the GPU kernels cost, against torch, against the memory's own speed, and against other libraries.

Run with ``make bench-gpu`` where there is a CUDA device: it checks every optimizer against the float64 reference, times
all measures, and appends JSON lines with the device's name. ``--smoke`` runs the whole of it at tiny sizes on the CPU,
in Triton's interpreter; its times say nothing and are neither shown nor kept.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import onepass
from benchmarks.runner import PACKAGES, Result, compare, environment, measured_in_new_process

ELEMENTWISE = ("sgd", "adagrad", "rmsprop", "adadelta", "adam", "adamw", "adamax", "nadam", "radam", "yogi")
UNFUSED = ("RAdam", "NAdam", "Adamax", "RMSprop", "Adadelta")
# What a step may take beyond the time that the device needs to copy as many bytes.
NEAR, NEARER = 1 / 0.88, 1 / 0.90


class Bench:
    """Where everything runs, and how large it is."""

    def __init__(self, smoke: bool):
        self.smoke = smoke
        self.device = torch.device("cpu" if smoke else "cuda")
        self.name = "Triton's interpreter" if smoke else torch.cuda.get_device_name()
        self.huge = [(1024,)] * 4 if smoke else [(2**26,)] * 16
        self.large = [(1024,)] * 2 if smoke else [(2**26,)] * 4
        self.many = [(64,)] * 8 if smoke else [(10_000,)] * 1000
        self.rounds = 2 if smoke else 20

    def filled(self, shapes: Sequence[tuple[int, ...]]) -> list[torch.nn.Parameter]:
        """Parameters of these shapes with gradients."""
        params = [torch.nn.Parameter(torch.full(shape, 0.5, device=self.device)) for shape in shapes]
        for p in params:
            p.grad = torch.full_like(p, 1e-3)
        return params

    def make(self, name: str, params: Any, **options: Any) -> onepass.Optimizer:
        return onepass.create(name, params, backend="triton", **options)

    def synchronize(self) -> None:
        if not self.smoke:
            torch.cuda.synchronize()

    def interleave(
        self, contenders: dict[str, Callable[[], Any]], rounds: int | None = None, inner: int = 1
    ) -> dict[str, list[float]]:
        """Milliseconds of each contender in each round, from an idle device until it is idle again."""
        times: dict[str, list[float]] = {name: [] for name in contenders}
        # Past the steps that RAdam and its kin take while they warm up.
        for _ in range(2 if self.smoke else 8):
            for run in contenders.values():
                run()
        gc.collect()
        for _ in range(rounds or self.rounds):
            for name, run in contenders.items():
                self.synchronize()
                start = time.perf_counter()
                for _ in range(inner):
                    run()
                self.synchronize()
                times[name].append(1e3 * (time.perf_counter() - start) / inner)
        return times

    def copying(self, count: int) -> Callable[[], Any]:
        """A copy that moves as many bytes as are in ``count`` float32 numbers, half of them read, half written."""
        source = torch.zeros(max(1, count // 2), device=self.device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)


def elements(shapes: Sequence[tuple[int, ...]]) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)


def scaled(times: dict[str, list[float]], factor: float) -> dict[str, list[float]]:
    """The copy's times as if it had moved ``factor`` times as much."""
    return {**times, "copy": [factor * x for x in times["copy"]]}


def one_billion(bench: Bench) -> Iterator[Result]:
    n = elements(bench.huge)
    contenders = {
        "onepass": bench.make("adamw", bench.filled(bench.huge)).step,
        "torch fused": torch.optim.AdamW(bench.filled(bench.huge), fused=True).step,
        "copy": bench.copying(2 * n),
    }
    times = bench.interleave(contenders)
    label = f"AdamW, {n / 1e9:.2g} G parameters in {len(bench.huge)} tensors"
    yield compare(label, scaled(times, 7 / 2), "onepass", "copy", NEARER)
    yield compare(label, times, "onepass", "torch fused", 1.02)


def rules_against_their_floor(bench: Bench) -> Iterator[Result]:
    moved = {d.name: d.bytes_per_parameter for d in onepass.describe()}
    n = elements(bench.large)
    for name in ELEMENTWISE:
        opt = bench.make(name, bench.filled(bench.large))
        times = bench.interleave({"onepass": opt.step, "copy": bench.copying(2 * n)})
        yield compare(f"{name}, {n / 1e6:.3g} M parameters", scaled(times, moved[name] / 8), "onepass", "copy", NEAR)
        del opt
        release(bench)


def rules_without_a_fused_form(bench: Bench) -> Iterator[Result]:
    for name in UNFUSED:
        contenders = {
            "onepass": bench.make(name, bench.filled(bench.large)).step,
            "torch foreach": getattr(torch.optim, name)(bench.filled(bench.large), foreach=True).step,
        }
        times = bench.interleave(contenders, rounds=5 if not bench.smoke else 2)
        label = f"{name}, {elements(bench.large) / 1e6:.3g} M parameters"
        yield compare(label, times, "onepass", "torch foreach", 1 / 2.5)
        del contenders
        release(bench)


def many_tensors(bench: Bench) -> Iterator[Result]:
    contenders = {
        "onepass": bench.make("adamw", bench.filled(bench.many)).step,
        "torch fused": torch.optim.AdamW(bench.filled(bench.many), fused=True).step,
    }
    times = bench.interleave(contenders, inner=1 if bench.smoke else 10)
    label = f"AdamW, {len(bench.many)} tensors, {elements(bench.many) / 1e6:.3g} M parameters"
    yield compare(label, times, "onepass", "torch fused", 1.0)


def many_tensors_in_a_graph(bench: Bench) -> Iterator[Result]:
    if bench.smoke:
        print("a CUDA graph needs a CUDA device: left out")
        return

    def captured(opt: Any) -> Callable[[], Any]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                opt.step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            opt.step()
        # The graph needs the optimizer's tensors as long as it lives.
        return lambda opt=opt: graph.replay()

    contenders = {
        "onepass": captured(bench.make("adamw", bench.filled(bench.many), capturable=True)),
        "torch fused": captured(torch.optim.AdamW(bench.filled(bench.many), fused=True, capturable=True)),
    }
    times = bench.interleave(contenders, inner=10)
    yield compare(f"AdamW, {len(bench.many)} tensors, in a CUDA graph", times, "onepass", "torch fused", 1.0)


def clipping(bench: Bench) -> Iterator[Result]:
    def clipped() -> Callable[[], Any]:
        params = bench.filled(bench.large)
        opt = torch.optim.AdamW(params, fused=True)

        def run() -> None:
            torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
            opt.step()

        return run

    theirs = "torch clip_grad_norm_ + fused"
    contenders = {
        "onepass": bench.make("adamw", bench.filled(bench.large), transforms=[onepass.clip_norm(1.0)]).step,
        theirs: clipped(),
    }
    label = f"AdamW with clip_norm, {elements(bench.large) / 1e6:.3g} M parameters"
    yield compare(label, bench.interleave(contenders), "onepass", theirs, 0.75)


def peak_memory(bench: Bench) -> Iterator[Result]:
    if bench.smoke:
        print("peak memory needs a CUDA device: left out")
        return
    opt = bench.make("adamw", bench.filled(bench.large))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        opt.step()
    states = 8 * elements(bench.large)
    used = (torch.cuda.max_memory_allocated() - before - states) / 2**20
    yield Result("Peak memory beyond parameters, gradients and states", "", used, None, None, None, None, 64.0, "MB")


_FIRST_STEP = """
import time, torch, onepass
device = {device!r}
params = [torch.nn.Parameter(torch.zeros(10, 10, device=device)) for _ in range(4)]
for p in params:
    p.grad = torch.ones_like(p)
opt = onepass.AdamW(params, backend="triton")
start = time.perf_counter()
opt.step()
if device == "cuda":
    torch.cuda.synchronize()
print(time.perf_counter() - start)
"""


def new_processes(bench: Bench) -> Iterator[Result]:
    code = _FIRST_STEP.format(device=bench.device.type)
    cold: list[float] = []
    warm: list[float] = []
    for _ in range(1 if bench.smoke else 3):
        with tempfile.TemporaryDirectory() as folder:
            kept = {"ONEPASS_CACHE_DIR": folder, "TRITON_CACHE_DIR": f"{folder}/triton-cache"}
            cold.append(measured_in_new_process(code, kept))
            warm.append(measured_in_new_process(code, kept))
    for name, seconds, target in (("nothing compiled yet", cold, 5.0), ("kernels in the cache", warm, 0.5)):
        label = f"First step of a process, {name}"
        yield Result(label, "", statistics.median(seconds), None, None, None, None, target, "s")


def rivals(bench: Bench) -> Iterator[Result]:
    """Other libraries, where they are installed."""
    for package, title in (("flashoptim", "FlashAdamW"), ("optimi", "AdamW"), ("bitsandbytes", "AdamW")):
        try:
            module = importlib.import_module(package)
            cls = getattr(module, title, None) or module.optim.AdamW
            theirs = cls(bench.filled(bench.large), lr=1e-3)
            ours = bench.make("adamw", bench.filled(bench.large))
            times = bench.interleave({"onepass": ours.step, package: theirs.step}, rounds=5 if not bench.smoke else 2)
        except Exception as error:
            print(f"{package} cannot be measured here ({type(error).__name__}: {error}): left out")
            continue
        yield compare(f"AdamW, {elements(bench.large) / 1e6:.3g} M parameters", times, "onepass", package, None)
        release(bench)


def release(bench: Bench) -> None:
    gc.collect()
    if not bench.smoke:
        torch.cuda.empty_cache()


def check(bench: Bench) -> None:
    """Three steps of every optimizer in float32, each held against the reference in float64 from the same state.

    Raises:
        AssertionError: one differs by more than its roundings.
    """
    generator = torch.Generator().manual_seed(0)
    for name in onepass.list_optimizers():
        for options in ({}, {"transforms": [onepass.clip_norm(1.0)]}, {"skip_nonfinite": True}):
            starts = [torch.randn(shape, generator=generator) for shape in ((33, 47), (5000,), ())]
            ours = [torch.nn.Parameter(x.to(bench.device)) for x in starts]
            theirs = [torch.nn.Parameter(x.double().to(bench.device)) for x in starts]
            fast, exact = (
                bench.make(name, ours, **options),
                onepass.create(name, theirs, backend="reference", **options),
            )
            for _ in range(3):
                for p, q in zip(ours, theirs, strict=True):
                    p.grad = torch.randn(p.shape, generator=generator).to(bench.device)
                    q.grad = p.grad.double()
                fast.step()
                exact.step()
                for p, q in zip(ours, theirs, strict=True):
                    # Rounding of the parameter, and some of the step, which is far smaller.
                    assert torch.allclose(p.double(), q, rtol=4e-7, atol=4e-7), (name, options)
                    with torch.no_grad():
                        q.copy_(p)
                        for key, value in fast.state[p].items():
                            exact.state[q][key].copy_(value)
    print(f"{len(onepass.list_optimizers())} optimizers agree with the reference in float64 on {bench.name}")


MEASURES = (
    one_billion,
    rules_against_their_floor,
    rules_without_a_fused_form,
    many_tensors,
    many_tensors_in_a_graph,
    clipping,
    peak_memory,
    new_processes,
    rivals,
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run the measures whose name contains this")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/gpu.jsonl"), help="JSON lines to append to"
    )
    parser.add_argument("--smoke", action="store_true", help="all of it at tiny sizes in Triton's interpreter")
    given = parser.parse_args(arguments)
    if given.smoke:
        os.environ["TRITON_INTERPRET"] = "1"
    elif not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing is measured; --smoke runs it all in Triton's interpreter.")
        return
    bench = Bench(given.smoke)
    check(bench)
    facts = {**environment((*PACKAGES, "triton", "flashoptim", "bitsandbytes")), "device": bench.name}
    for measure in MEASURES:
        if given.only not in measure.__name__:
            continue
        for result in measure(bench):
            if bench.smoke:
                print(f"{result.measure}{f', against {result.against}' if result.against else ''}: ran", flush=True)
            else:
                show(result)
                given.out.parent.mkdir(parents=True, exist_ok=True)
                with given.out.open("a") as file:
                    file.write(json.dumps({**asdict(result), "reached": result.reached, **facts}) + "\n")
        release(bench)


def show(result: Result) -> None:
    ratio = f"{result.ratio:.2f} [{result.low:.2f}, {result.high:.2f}]" if result.ratio is not None else ""
    mark = {True: "reached", False: "MISSED", None: ""}[result.reached]
    target = "" if result.target is None else f"<= {result.target:.3g}"
    ours = f"{result.ours:9.3f} {result.unit:2}"
    print(f"{result.measure:62} {ours}  {ratio:20} {target:8} {mark:8} {result.against}", flush=True)


if __name__ == "__main__":
    main()
