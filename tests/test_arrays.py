"""The functions that evaluate expressions over arrays, held against `on_arrays`."""

from typing import Any

import numpy as np
import pytest

from onepass import average, centralize, clip_adaptive, clip_norm, clip_value, decay
from onepass.compiler import compile_arrays, on_arrays
from onepass.functional.recipe import list_rules, recipe
from onepass.lang import Level, symbol, where
from onepass.lang.expr import apply

OPTIONS = {
    "plain": (),
    "clipped": (clip_norm(0.1), clip_value(0.05)),
    "by rows": (centralize(), clip_adaptive(0.01), average(0.9)),
}


def same(a, b):
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("rule", list_rules())
@pytest.mark.parametrize("t", [1, 7])
def test_a_variant_is_what_its_expressions_are(rule, options, t):
    made = recipe(rule, weight_decay=decay.l2(1e-2), transforms=OPTIONS[options])
    program = made.program
    situation = program.situation(made.host_values, t, 2, [0.5] * len(program.scalars))
    variant = situation.variant
    random = np.random.default_rng(t)
    values: dict[str, Any] = {f"row[{i}]": x for i, x in enumerate(situation.row)}
    for name in ("p", "g", *(f"state.{key}" for key in program.states)):
        values[name] = random.uniform(0.1, 1.0, (3, 4))
    values["g"][0] = 0.0
    with np.errstate(all="ignore"):
        known, memo = {}, {}
        for node, summand in zip(variant.over_model, variant.compute_summands, strict=True):
            (terms,) = summand(np, values, known)
            assert same(terms, on_arrays(node.args[0], values, memo, np))
            known[node] = memo[node] = terms.sum()
        expected = [on_arrays(x, values, memo, np) for x in (variant.parameter, *variant.states.values())]
        assert all(map(same, variant.compute_results(np, values, known), expected))


X, Y = symbol("p", Level.ELEMENT), symbol("g", Level.ELEMENT)
VALUES = {"p": np.array([1.0, -2.0, 0.0, np.nan], np.float32), "g": np.array([0.5, 0.0, -0.0, 3.0], np.float32)}


def tower(height):
    node = X
    for _ in range(height):
        node = node * 0.5 + Y
    return node


EXPRESSIONS = {
    "a symbol": X,
    "infinity": apply("maximum", X, -float("inf")),
    "a choice between numbers": where(X < Y, float("nan"), 1.0),
    "a choice": where(X < Y, X, 0.0),
    "the sign of NaN, and a remainder": apply("sign", X) % 0.75,
    "a power": abs(Y) ** 1.5 / -X,
    "logic": where((X > 0) & (Y > 0) | (X != X), X, Y),
    "a reduction": apply("mean", X * X, over="tensor") * X,
    "deeper than Python reads parentheses": tower(120),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_is_what_it_says(name):
    expression = EXPRESSIONS[name]
    with np.errstate(all="ignore"):
        (found,) = compile_arrays([expression])(np, VALUES, {})
        expected = on_arrays(expression, VALUES, {}, np)
    assert same(found, expected)
    assert np.asarray(found).dtype == np.asarray(expected).dtype


def test_what_is_known_is_not_computed_again():
    inner = X * Y
    (found,) = compile_arrays([inner + X], [inner])(np, VALUES, {inner: np.float32(100.0)})
    assert same(found, 100.0 + VALUES["p"])


def test_what_is_used_twice_is_computed_once():
    calls = []

    class Namespace:
        @staticmethod
        def sqrt(x):
            calls.append(x)
            return np.sqrt(x)

    root = apply("sqrt", Y)
    first, second = compile_arrays([root * X, root])(Namespace, VALUES, {})
    assert len(calls) == 1
    assert same(first, second * VALUES["p"])


def test_memory_is_let_go_after_the_last_use():
    alive, most = 0, 0

    class Counted:
        def __init__(self):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

        def __add__(self, other):
            return Counted()

        __mul__ = __add__

    node = X
    for _ in range(20):
        node = node * node + Y
    values = {"p": Counted(), "g": Counted()}
    compile_arrays([node])(None, values, {})
    assert most <= 5
