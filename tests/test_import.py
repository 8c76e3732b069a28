"""Importing onepass costs little, and brings in no framework until one is asked for."""

import subprocess
import sys

import onepass


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_in_no_framework():
    found = run("import sys, onepass; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "onepass" in found
    assert not {"torch", "numba", "llvmlite", "numpy", "matplotlib", "triton", "jax", "tensorflow"} & set(found)


def test_the_functional_form_does_without_torch():
    found = run(
        "import sys, numpy as np\n"
        "from onepass.functional import init, update\n"
        "params = [np.ones(3)]\n"
        "params, _ = update(params, params, init(params, 'adamw'))\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    ).split()
    assert "numpy" in found
    assert not {"torch", "numba"} & set(found)


def test_every_name_can_be_had_and_is_listed():
    for name in onepass.__all__:
        assert getattr(onepass, name) is not None
        assert name in dir(onepass)
    run("from onepass import *; AdamW, clip_norm")


def test_an_attribute_that_is_not_there_is_an_error():
    assert not hasattr(onepass, "AdamWW")


def test_submodules_are_attributes():
    assert run("import onepass; print(onepass.optim.AdamW is onepass.AdamW, onepass.testing.__name__)").split() == [
        "True",
        "onepass.testing",
    ]
