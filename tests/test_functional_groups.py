"""Parameters that share a program and differ in their hyperparameters."""

import weakref

import numpy as np
import pytest

import onepass
from onepass.functional.core import Item, advance, advance_each, initial_states
from onepass.functional.numpy import library
from onepass.functional.recipe import recipe

NUMPY = library("numpy")


def run(given, groups, params):
    states = initial_states(
        given.program, given.host_values, [(f"params[{i}]", p) for i, p in enumerate(params)], NUMPY
    )
    for t in (1, 2, 3):
        params, states, reports = advance(given.program, groups, t, params, params, states, NUMPY)
    return params, reports


@pytest.mark.parametrize("rule", ["sgd", "nadam", "radam"])
def test_each_parameter_follows_its_own_values(rule):
    given = recipe(rule, lr=0.1, weight_decay=0.1)
    params = [np.array([1.0, -2.0]), np.array([3.0])]
    groups = [dict(given.host_values), {**given.host_values, "lr": 0.2, "weight_decay": 0.0}]
    together, _ = run(given, groups, params)
    for p, group, expected in zip(params, groups, together, strict=True):
        np.testing.assert_array_equal(run(given, group, [p])[0][0], expected)


def test_what_spans_the_model_spans_all_values():
    given = recipe("sgd", lr=0.1, transforms=[onepass.clip_norm(1.0)])
    params = [np.array([3.0]), np.array([4.0])]
    first, second = dict(given.host_values), {**given.host_values, "lr": 0.0}
    new, _, reports = advance(given.program, [first, second], 1, params, params, [{}, {}], NUMPY)
    assert reports["last_grad_norm"] == 5.0
    np.testing.assert_allclose(new, [[3.0 - 0.1 * 3 / (5 + 1e-6)], [4.0]], rtol=1e-15)


def test_parameters_that_differ_in_weight_decay_and_step_count_share_what_spans_the_model():
    clip = [onepass.clip_norm(1.0)]
    decayed, plain = (recipe("adam", lr=0.1, weight_decay=x, transforms=clip) for x in (0.1, 0.0))
    p, g = np.array([3.0]), np.array([4.0])
    items = []
    for given, t in ((decayed, 1.0), (plain, 7.0)):
        (state,) = initial_states(given.program, given.host_values, [("p", p)], NUMPY)
        items.append(Item(given.program, given.host_values, t, p, g, state))
    results, reports = advance_each(items, NUMPY)
    assert reports["last_grad_norm"] == np.sqrt(32.0)
    clipped = g / (np.sqrt(32.0) + 1e-6)
    for item, given, (found, _) in zip(items, (decayed, plain), results, strict=True):
        alone = recipe("adam", lr=0.1, weight_decay=dict(given.items)["weight_decay"])
        (expected,), _, _ = advance(alone.program, alone.host_values, item.t, [p], [clipped], [item.state], NUMPY)
        np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_what_is_cast_for_a_parameter_goes_with_it(monkeypatch):
    given, casts = recipe("adam"), []

    def cast(x, dtype):
        y = x.astype(dtype)
        if dtype == "float32":
            casts.append(weakref.ref(y))
        return y

    monkeypatch.setattr(NUMPY, "cast", cast, raising=False)
    params = [np.ones(4, np.float16) for _ in range(5)]
    states = initial_states(given.program, given.host_values, [("p", p) for p in params], NUMPY)
    casts.clear()
    items = [Item(given.program, given.host_values, 1.0, p, p, s) for p, s in zip(params, states, strict=True)]
    results, _ = advance_each(items, NUMPY)
    for number, _ in enumerate(results, 1):
        assert len(casts) == 4 * number
        assert not any(alive() is not None for alive in casts)
