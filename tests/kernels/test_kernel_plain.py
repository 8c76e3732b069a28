"""The CPU's kernels on arrays that are known by their addresses alone."""

import subprocess
import sys

import golden
import numpy as np
import pytest

from onepass.backends.cpu.plain import Array, Pool, Tables
from onepass.functional.core import Item, initial_states, situations
from onepass.functional.numpy import library
from onepass.functional.recipe import recipe

NUMPY = library("numpy")
CASES = [case for case in golden.CASES if case.decay in ("none", "decoupled")]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_golden_trajectories_in_place(case, dtype):
    given = golden.load(case)
    made = recipe(case.rule, lr=golden.LR, weight_decay=case.weight_decay, transforms=case.transforms)
    program = made.program
    params = [x.astype(dtype) for x in given.start]
    states = initial_states(program, made.host_values, [("p", p) for p in params], NUMPY)
    # What is left of an array without dimensions is a number, which lies nowhere.
    states = [{key: x if type(x) is float else np.array(x) for key, x in state.items()} for state in states]
    stored = [
        tuple([("p", dtype), ("g", dtype)] + [(f"state.{key}", state[key].dtype.name) for key in program.states])
        for state in states
    ]
    tables = Tables([Array(program, p.shape, row) for p, row in zip(params, stored, strict=True)], Pool())
    for t, gradients in enumerate(given.gradients, 1):
        values = made.changed({"lr": case.lr(t)}, NUMPY.is_traced)
        grads = [x.astype(dtype) for x in gradients]
        items = [
            Item(program, values, float(t), p, g, state) for p, g, state in zip(params, grads, states, strict=True)
        ]
        found = situations(items)
        arrays = [[i.p, i.g, *(i.state[key] for key in program.states)] for i in items]
        reports = tables.step(found, [[x.ctypes.data for x in row] for row in arrays])
        assert set(reports) == set(program.reports)
        for state, situation in zip(states, found, strict=True):
            state.update(zip(program.scalars, situation.after, strict=True))
        if t in golden.RECORDED:
            assert golden.error(params, given.params[t]) <= golden.bound(dtype), t


def test_torch_is_not_needed():
    code = "import sys, onepass.backends.cpu.plain; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
