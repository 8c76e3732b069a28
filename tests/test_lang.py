"""The language: shared immutable expressions, one op table, declarations read from signatures."""

import gc
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import onepass
from onepass.backends.cpu.emit import NUMBA
from onepass.backends.triton.emit import TRITON
from onepass.compiler.equations import LATEX, UNICODE
from onepass.compiler.host import PYTHON
from onepass.lang import OPS, Level, Range, constant, rule, scalar, symbol, transform
from onepass.rules import RULES

x = symbol("x", Level.ELEMENT)
t = symbol("t", Level.STEP)


def test_equal_expressions_are_one_object():
    assert (x + 1) * 2 is (x + 1) * 2
    assert x + 1 is not x + 2
    assert constant(0.0) is not constant(-0.0)
    assert constant(1) is constant(1.0)
    assert constant(True) is not constant(1.0)


def test_nodes_that_nobody_holds_are_forgotten():
    gc.collect()
    before = len(type(x)._shared)
    kept = x * 12345.0
    assert len(type(x)._shared) == before + 2
    del kept
    gc.collect()
    assert len(type(x)._shared) == before


def test_expressions_are_immutable():
    with pytest.raises(AttributeError, match="immutable"):
        x.op = "y"


def test_pickling_an_expression_gives_the_same_object():
    expression = onepass.sqrt(x * x + t)
    assert pickle.loads(pickle.dumps(expression)) is expression


def test_branching_on_a_value_says_what_to_write():
    with pytest.raises(TypeError, match=r"where\(condition, a, b\)"):
        max(x, 1)
    with pytest.raises(TypeError, match="cannot be unpacked"):
        _, _ = x


def test_levels_are_those_of_the_arguments_and_reductions_lower_them():
    assert (t * 2).level == Level.STEP
    assert (t * x).level == Level.ELEMENT
    assert onepass.mean(x).level == Level.TENSOR
    assert onepass.mean(x, over="row").level == Level.ROW
    assert onepass.norm(x, over="model").level == Level.MODEL
    with pytest.raises(ValueError, match="'column'"):
        onepass.mean(x, over="column")


def test_every_emitter_has_a_row_for_every_op():
    assert OPS.keys() == UNICODE.keys() == LATEX.keys() == PYTHON.keys() == NUMBA.keys() == TRITON.keys()


numbers = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.kind != "reduction" and name != "mod"])
@given(a=numbers, b=numbers, flag=st.booleans())
def test_an_op_means_the_same_on_floats_and_on_arrays(name, a, b, flag):
    op = OPS[name]
    args = [a, b][: op.arity]
    if op.kind == "selection":
        args = [flag, a, b]
    if op.kind == "logic":
        args = [flag, a > b]
    with np.errstate(all="ignore"):
        for xp in (np, torch):
            arrays = [xp.asarray(v) if isinstance(v, bool) else xp.asarray(v, dtype=xp.float64) for v in args]
            ours, theirs = float(op.floats(*args)), float(op.arrays(xp, *arrays))
            if math.isnan(ours) or math.isnan(theirs):
                assert math.isnan(ours) == math.isnan(theirs), (xp, args)
            else:
                assert ours == pytest.approx(theirs, rel=1e-12), (xp, args)


@given(a=st.integers(0, 10**6), b=st.integers(1, 1000))
def test_the_remainder_counts_steps(a, b):
    assert OPS["mod"].floats(float(a), float(b)) == a % b


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_is_one_function_for_numbers_arrays_and_tensors(rule):
    def arguments(make):
        known = {"g": make(0.3), "p": make(2.0), "t": 7, "lr": 0.1, "ndim": 1}
        states = {state.name: make(0.2) for state in rule.states if not state.is_scalar}
        states.update({state.name: 0.9 for state in rule.states if state.is_scalar})
        return [{**known, **states}[name] for name in rule.inputs]

    def results(make):
        result = rule(*arguments(make))
        return [float(value) for value in (result if isinstance(result, tuple) else (result,))]

    plain = results(lambda v: v)
    assert results(lambda v: np.asarray(v)) == pytest.approx(plain, rel=1e-12)
    assert results(lambda v: torch.tensor(v, dtype=torch.float64)) == pytest.approx(plain, rel=1e-12)


def test_the_signature_is_the_declaration():
    @rule(state={"m": "exp_avg"}, init={"w": lambda p: p, "n": scalar(1.0)}, ranges={"nu": "(0, 1]"}, lr=0.5)
    def example(g, p, m, w, n, t, *, nu=0.5, betas=(0.1, 0.2)):
        """A summary.

        And more."""
        return g, m, w, n

    assert example.inputs == ("g", "p", "m", "w", "n", "t")
    assert [(s.name, s.key, s.is_scalar) for s in example.states] == [
        ("m", "exp_avg", False),
        ("w", "w", False),
        ("n", "n", True),
    ]
    assert example.hyperparameters == {"nu": 0.5, "betas": (0.1, 0.2)}
    assert example.lr == 0.5
    assert example.summary == "A summary."
    assert not example.returns_step


def test_what_a_signature_cannot_declare_is_refused():
    with pytest.raises(TypeError, match="takes the gradient"):
        rule(lambda p: p)
    with pytest.raises(TypeError, match=r"beta=0\.9 must be a plain positional"):

        @rule
        def default_before_the_star(g, beta=0.9):
            return g

    with pytest.raises(TypeError, match="'exp_avg'"):

        @rule(state={"exp_avg": "m"})
        def unknown_state(g, m):
            return g, m

    with pytest.raises(TypeError, match="first argument is g, u, p or p_next"):
        transform(lambda m, g: m)
    with pytest.raises(ValueError, match="is no interval"):
        Range.parse("0 to 1")


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("[0, 1)", [0.0, 0.5], [-0.1, 1.0, math.nan]),
        ("(0, inf)", [1e-300, 1e300], [0.0, math.inf]),
        ("[1, inf) integer", [1, 7], [0, 1.5]),
        ("[-inf, 2]", [-math.inf, 2.0], [2.1]),
    ],
)
def test_ranges(text, inside, outside):
    parsed = Range.parse(text)
    assert all(value in parsed for value in inside)
    assert not any(value in parsed for value in outside)


def test_transforms_are_called_with_their_values():
    ahead = onepass.lookahead(7, alpha=0.3)
    assert ahead.values == {"k": 7, "alpha": 0.3}
    assert repr(ahead) == "lookahead(k=7, alpha=0.3)"
    assert pickle.loads(pickle.dumps(ahead)) == ahead
    for call, message in [
        (lambda: onepass.lookahead(5, 0.5, 1), "at most 2 values"),
        (lambda: onepass.lookahead(steps=5), "no hyperparameter 'steps'"),
        (lambda: onepass.lookahead(5, k=5), "'k' twice"),
        (lambda: onepass.decay.l2(), "needs a value for weight_decay"),
        (lambda: onepass.lookahead(k="5"), "takes a number, not '5'; write 5 without the quotes"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()
    with pytest.raises(ValueError, match=r"lookahead: k must lie in an integer in \[1, inf\), and 0 does not"):
        onepass.lookahead(k=0)
