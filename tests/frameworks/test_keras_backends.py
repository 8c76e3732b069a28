"""The tests of the Keras optimizers under the other backends: Keras takes one a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RUNS = {
    "jax": {"KERAS_BACKEND": "jax"},
    "jax-float64": {"KERAS_BACKEND": "jax", "JAX_ENABLE_X64": "1"},
    "torch": {"KERAS_BACKEND": "torch"},
}


@pytest.mark.skipif("KERAS_BACKEND" in os.environ, reason="a backend has been chosen: only that one is tested")
@pytest.mark.parametrize("run", RUNS)
def test_under_backend(run):
    files = ["test_keras.py"] if run == "jax-float64" else ["test_keras.py", "test_keras_training.py"]
    only = ["-k", "float64"] if run == "jax-float64" else []
    command = [sys.executable, "-m", "pytest", *(str(HERE / file) for file in files), *only]
    done = subprocess.run(command, env={**os.environ, **RUNS[run]}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:]
