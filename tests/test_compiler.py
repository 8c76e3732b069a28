"""The compiler: traces, exact simplification, levels, variants, reductions, equations."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import onepass
from onepass import rules
from onepass.compiler import Stage, compile_rule, equations, on_arrays, on_host, trace
from onepass.compiler.host import compile_host
from onepass.compiler.program import walk
from onepass.compiler.simplify import simplify
from onepass.lang import OPS, Level, constant, rule, scalar, symbol
from onepass.transforms import cautious, centralize, decay, lookahead

x = symbol("x", Level.ELEMENT)
t = symbol("t", Level.STEP)


def test_constants_fold_and_identities_vanish():
    assert simplify(constant(2) * 3 + 1) is constant(7)
    negated = -x
    negated_twice = -negated
    for expression in (x * 1, 1 * x, x / 1, x - 0, x**1, negated_twice, onepass.where(constant(True), x, t)):
        assert simplify(expression) is x
    assert simplify(x**2) is x * x
    assert simplify(onepass.where(t > 1, x, x)) is x
    assert simplify(onepass.mean(t * 2)) is t * 2


def test_what_would_change_a_zero_or_hide_a_nan_stays():
    for expression in (x + 0, x * 0, x - x, x / x):
        assert simplify(expression) is expression


@st.composite
def expressions(draw, depth=4):
    """Random expressions of one symbol and constants."""
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from([x, *map(constant, (0.0, -0.0, 1.0, 2.0, -1.5, float("inf")))]))
    op = draw(st.sampled_from(["add", "sub", "mul", "div", "neg", "absolute", "sign", "maximum", "where", "pow"]))
    if op == "where":
        condition = draw(expressions(depth - 1)) > 0
        return onepass.where(condition, draw(expressions(depth - 1)), draw(expressions(depth - 1)))
    if op == "pow":
        return draw(expressions(depth - 1)) ** draw(st.sampled_from([1.0, 2.0]))
    from onepass.lang.expr import apply

    return apply(op, *(draw(expressions(depth - 1)) for _ in range(OPS[op].arity)))


@given(expression=expressions(), value=st.floats())
def test_simplifying_changes_no_bit(expression, value):
    before = on_host(expression, {"x": value}, {})
    after = on_host(simplify(expression), {"x": value}, {})
    assert np.float64(before).tobytes() == np.float64(after).tobytes() or (before != before and after != after)


@given(expression=expressions(), value=st.floats())
def test_the_compiled_host_computes_what_the_interpreter_does(expression, value):
    ours = compile_host([expression])({"x": value})[0]
    interpreted = float(on_host(expression, {"x": value}, {}))
    assert ours == interpreted or (ours != ours and interpreted != interpreted)


def test_the_compiled_host_is_lazy_too():
    lazy = onepass.where(t > 5, onepass.sqrt(symbol("absent", Level.STEP)), 1.0)
    assert compile_host([lazy])({"t": 5.0}) == (1.0,)


def test_the_host_never_looks_at_the_side_not_chosen():
    lazy = onepass.where(t > 5, onepass.sqrt(symbol("absent", Level.STEP)), 1.0)
    assert on_host(lazy, {"t": 5.0}, {}) == 1.0
    with pytest.raises(KeyError, match="absent"):
        on_host(lazy, {"t": 6.0}, {})


def values_for(program, **extra):
    known = {"lr": 0.1, "betas[0]": 0.9, "betas[1]": 0.999, "eps": 1e-8, "k": 5.0, "alpha": 0.5, "weight_decay": 0.1}
    return {**known, "t": 1.0, "ndim": 2.0, **extra}


def test_radam_has_a_variant_for_its_warm_up():
    program = compile_rule(rules.radam)
    early = program.variant(values_for(program, t=5.0))
    late = program.variant(values_for(program, t=6.0))
    assert early is program.variant(values_for(program, t=1.0))
    assert early is not late
    assert "state.exp_avg_sq" in late.reads
    assert not any(node.op == "sqrt" for node in walk([early.parameter]))


def test_lookahead_touches_its_slow_weights_only_when_it_synchronises():
    program = compile_rule(rules.adam, (Stage(lookahead),))
    idle = program.variant(values_for(program, t=4.0))
    sync = program.variant(values_for(program, t=5.0))
    assert "slow" not in idle.states
    assert "state.slow" not in idle.reads
    assert "slow" in sync.states
    assert sync.traffic() - idle.traffic() == 2


def test_every_step_value_is_hoisted():
    program = compile_rule(rules.nadam, (Stage(decay.decoupled),))
    variant = program.variant({**values_for(program), "momentum_decay": 4e-3, "state.mu_product": 1.0})
    for node in walk([variant.parameter, *variant.states.values()]):
        if node.level == Level.STEP and node.op != "constant":
            assert node.op == "symbol"
            assert node.data.startswith("row[")
    assert all(node.level == Level.STEP for node in variant.row)


def test_the_same_rule_and_transforms_compile_once():
    assert compile_rule(rules.adam, (Stage(lookahead),)) is compile_rule(rules.adam, (Stage(lookahead),))


def test_reductions_come_innermost_first():
    program = compile_rule(rules.adam, (Stage(centralize), Stage(cautious)))
    variant = program.variant(values_for(program))
    assert [node.data for node in variant.reductions] == ["row", "tensor"]


@pytest.mark.parametrize("xp", [np, torch])
def test_a_program_runs_over_any_array_library(xp):
    program = compile_rule(rules.adam, (Stage(cautious), Stage(decay.decoupled)))
    host = values_for(program, t=3.0)
    variant = program.variant(host)
    row = {f"row[{i}]": value for i, value in enumerate(variant.compute_row(host))}
    arrays = {"p": [1.0, -2.0], "g": [0.5, 0.1], "state.exp_avg": [0.1, -0.9], "state.exp_avg_sq": [0.2, 0.3]}
    arrays = {name: xp.asarray(value, dtype=xp.float64) for name, value in arrays.items()}
    p = on_arrays(variant.parameter, {**arrays, **row}, {}, xp)
    # By hand: the second average, -0.8, points against its gradient, so one of two elements moves, twice as far.
    m, v = 0.9 * 0.1 + 0.1 * 0.5, 0.999 * 0.2 + 0.001 * 0.25
    u = m / (1 - 0.9**3) / ((v / (1 - 0.999**3)) ** 0.5 + 1e-8)
    assert np.asarray(p) == pytest.approx([1.0 * 0.99 - 0.1 * u * 2, -2.0 * 0.99], rel=1e-12)


def test_wrong_results_are_named():
    @rule
    def forgets_its_state(g, m):
        return g

    @rule(init={"n": scalar(0.0)})
    def mixes_levels(g, n):
        return g, n + onepass.mean(g)

    @rule
    def returns_text(g):
        return "g"

    @rule(init={"m": lambda q: q})
    def unknown_initial(g, m):
        return g, m

    for broken, message in [
        (forgets_its_state, "returned 1 value; its signature declares 2: the step, m"),
        (mixes_levels, "depends on tensors"),
        (returns_text, "returned 'g'"),
        (unknown_initial, "not 'q'"),
    ]:
        with pytest.raises(TypeError, match=message):
            trace(broken)

    @rule
    def slow_already(g, slow):
        return g, slow

    with pytest.raises(ValueError, match="both keep a state under the key 'slow'"):
        trace(slow_already, (Stage(lookahead),))


def test_equations_in_unicode():
    assert equations(rules.adam, (Stage(decay.decoupled),)).splitlines() == [
        "mₜ = β₁ · mₜ₋₁ + (1 − β₁) · gₜ",
        "vₜ = β₂ · vₜ₋₁ + (1 − β₂) · gₜ²",
        "m̂ = mₜ / (1 − β₁ᵗ)",
        "v̂ = vₜ / (1 − β₂ᵗ)",
        "θₜ = θₜ₋₁ · (1 − η · λ) − η · m̂ / (√v̂ + ε)",
    ]


def test_equations_in_latex():
    assert equations(rules.rmsprop, latex=True).splitlines() == [
        r"\begin{aligned}",
        r"v_{t} &= \alpha \, v_{t-1} + \left(1 - \alpha\right) \, g_{t}^{2} \\",
        r"\theta_{t} &= \theta_{t-1} - \eta \, \frac{g_{t}}{\sqrt{v_{t}} + \epsilon}",
        r"\end{aligned}",
    ]


@pytest.mark.parametrize("latex", [False, True])
@pytest.mark.parametrize("name", [*onepass.list_optimizers(), *rules.RULES])
def test_every_equation_prints_and_mentions_each_state(name, latex):
    text = onepass.equations(name, latex=latex)
    assert text.count("=") >= 1
    assert "row[" not in text
    assert "state." not in text


def test_a_norm_is_printed_as_one():
    @rule
    def normalized(g):
        return g / onepass.norm(g, over="model")

    assert equations(normalized) == "θₜ = θₜ₋₁ − η · gₜ / ‖gₜ‖model"


@pytest.mark.parametrize("t_now", [3.0, 6.0, 7.0])
def test_a_decision_may_be_left_to_each_element(t_now):
    program = compile_rule(rules.radam, (Stage(lookahead, "lookahead_"),))
    known = {"t": t_now, "ndim": 1.0, "lr": 0.1, "betas[0]": 0.9, "betas[1]": 0.999, "eps": 1e-8}
    known |= {"lookahead_k": 3.0, "lookahead_alpha": 0.5}
    random = np.random.default_rng(0)
    arrays = {name: random.random(5) for name in ("p", "g", *(f"state.{key}" for key in program.states))}

    def values(variant):
        row = {f"row[{i}]": on_host(value, known, {}) for i, value in enumerate(variant.row)}
        memo = {}
        wanted = {"p": variant.parameter, **variant.states}
        return {name: on_arrays(value, {**arrays, **row}, memo, np) for name, value in wanted.items()}

    left_open = program.variant_of((None,) * len(program.decisions))
    decided = program.variant(known)
    assert len(program.decisions) == 2
    with np.errstate(invalid="ignore"):
        ours, theirs = values(left_open), values(decided)
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-14)
    for name in set(ours) - set(theirs):
        np.testing.assert_array_equal(ours[name], arrays[f"state.{name}"])
