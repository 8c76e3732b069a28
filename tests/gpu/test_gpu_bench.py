"""`make bench-gpu` runs from end to end, at tiny sizes in the interpreter, and says so where there is no device."""

import os
import subprocess
import sys
from pathlib import Path

import interpreted
import pytest
import torch

# It sets up the interpreter by itself.
pytestmark = interpreted.never

ROOT = Path(__file__).parent.parent.parent


def run(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_runs_from_end_to_end(tmp_path):
    text = run("--smoke", "--out", str(tmp_path / "gpu.jsonl"), ONEPASS_CACHE_DIR=str(tmp_path))
    assert "optimizers agree with the reference in float64 on Triton's interpreter" in text
    for measure in (
        "G parameters in 4 tensors",
        "yogi, ",
        "RAdam, ",
        "8 tensors",
        "with clip_norm",
        "kernels in the cache",
    ):
        assert measure in text
    # Times of the interpreter are no results.
    assert not (tmp_path / "gpu.jsonl").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_device_it_says_so(tmp_path):
    text = run("--out", str(tmp_path / "gpu.jsonl"))
    assert "There is no CUDA device here, so nothing is measured" in text
    assert not (tmp_path / "gpu.jsonl").exists()
