"""Run a few lines in a process of their own, with a time limit, for what would harm the one that tests."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap

# Runs before every script: eight steps of a model that is large enough for all threads, and what came of them.
PRELUDE = """
import hashlib, os, sys, warnings
import torch
torch.set_num_threads(2)

def model(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((300, 400), (70,), (9, 5000))]

def walk(params, opt, steps=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        opt.step()

def digest(params):
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in params)).hexdigest()
"""


def run(code, timeout=120, **environment):
    """What the script prints, its lines; it must end by itself and with code 0."""
    done = start(code, **environment)
    try:
        out, err = done.communicate(timeout=timeout)
    finally:
        # With its own children: a child that waits for ever is one of the faults that are looked for.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(done.pid, signal.SIGKILL)
        done.wait()
    assert done.returncode == 0, err[-3000:]
    return out.split("\n")[:-1]


def start(code, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )
