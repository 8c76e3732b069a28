"""The golden trajectories are the reference's, and NumPy and torch follow them."""

import golden
import golden.make
import numpy as np
import pytest
import torch

from onepass import decay
from onepass.functional import init, list_rules, update

FRAMEWORKS = {"numpy": np.asarray, "torch": lambda x, dtype="float64": torch.tensor(x, dtype=getattr(torch, dtype))}


def follow(case, array, dtype):
    """The errors of the parameters and of the states, and all states at the end."""
    known = golden.load(case)
    params = [array(p, dtype=dtype) for p in known.start]
    state = init(params, case.rule, lr=golden.LR, weight_decay=case.weight_decay, transforms=case.transforms)
    worst = 0.0
    for t in range(1, golden.STEPS + 1):
        grads = [array(g, dtype=dtype) for g in known.gradients[t - 1]]
        changes = {"lr": case.lr(t)} if case.is_scheduled else {}
        params, state = update(params, grads, state, **changes)
        if t in known.params:
            worst = max(worst, golden.error(params, known.params[t]))
    assert set(state.tensors) == set(known.states)
    return worst, max([golden.error(state.tensors[key], value) for key, value in known.states.items()], default=0.0)


def test_the_golden_file_is_what_the_reference_makes():
    made = golden.make.trajectories()
    with np.load(golden.FILE) as file:
        assert set(file.files) == set(made)
        for name in file.files:
            np.testing.assert_allclose(file[name], made[name], rtol=1e-13, atol=1e-15)


def test_the_golden_file_has_every_rule_and_form_of_decay():
    assert set(golden.RULES) == set(list_rules())
    assert set(golden.DECAYS) == {"none", *decay.FORMS}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("rule", golden.RULES)
def test_golden_trajectories(rule, framework, dtype):
    for case in golden.CASES:
        if case.rule == rule:
            params, states = follow(case, FRAMEWORKS[framework], dtype)
            assert max(params, states) < golden.bound(dtype), case


def test_a_wrong_trajectory_is_noticed():
    case = golden.Case("adam", "l2", "plain")
    wrong = golden.Case("adam", "decoupled", "plain")
    ours, theirs = golden.load(case).params[1], golden.load(wrong).params[1]
    assert golden.error(ours, theirs) > 1e3 * golden.bound("float32")
