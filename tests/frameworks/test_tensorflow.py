"""`init` and `update` on TensorFlow's tensors: eagerly, under ``tf.function`` and under XLA."""

import golden
import numpy as np
import pytest
import tensorflow as tf

import onepass
from onepass.functional import init, update

CASES = {rule: [case for case in golden.CASES if case.rule == rule] for rule in golden.RULES}


def started(case, dtype):
    known = golden.load(case)
    params = [tf.constant(p, dtype) for p in known.start]
    grads = [[tf.constant(g, dtype) for g in row] for row in known.gradients]
    state = init(params, case.rule, lr=golden.LR, weight_decay=case.weight_decay, transforms=case.transforms)
    return known, params, grads, state


def check(known, found, state, dtype):
    for t, params in found.items():
        assert golden.error(params, known.params[t]) < golden.bound(dtype)
    assert set(state.tensors) == set(known.states)
    for key, theirs in known.states.items():
        assert golden.error(state.tensors[key], theirs) < golden.bound(dtype), key


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rule", golden.RULES)
def test_golden_trajectories(rule, dtype):
    for case in CASES[rule]:
        known, params, grads, state = started(case, dtype)
        found = {}
        for t in range(1, golden.STEPS + 1):
            changes = {"lr": case.lr(t)} if case.is_scheduled else {}
            params, state = update(params, grads[t - 1], state, **changes)
            found[t] = params
        check(known, {t: found[t] for t in known.params}, state, dtype)


@pytest.mark.parametrize("rule", golden.RULES)
def test_golden_trajectories_in_one_trace(rule):
    """The step count and the learning rate are tensors: one trace serves every step, RAdam's branches included."""
    for case in CASES[rule][:: len(CASES[rule]) - 1]:
        known, params, grads, state = started(case, "float64")

        @tf.function
        def step(params, grads, state, lr):
            return update(params, grads, state, lr=lr)

        found = {}
        for t in range(1, golden.STEPS + 1):
            params, state = step(params, grads[t - 1], state, tf.constant(case.lr(t), "float64"))
            found[t] = params
        assert step.experimental_get_tracing_count() == 1
        assert int(state.step) == golden.STEPS
        check(known, {t: found[t] for t in known.params}, state, "float64")


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("rule", ["adamw", "nadam", "radam", "ranger"])
def test_variables_hold_the_state(rule, jit_compile):
    transforms = [onepass.clip_norm(0.5)]
    start = {"w": tf.constant([[1.0, -2.0], [3.0, 4.0]]), "b": tf.constant([0.5, 0.0])}
    grads = {"w": tf.constant([[0.1, -0.2], [0.3, 0.4]]), "b": tf.constant([0.0, 1.0])}
    params = tf.nest.map_structure(tf.Variable, start)
    state = tf.nest.map_structure(tf.Variable, init(params, rule, lr=0.1, transforms=transforms))

    @tf.function(jit_compile=jit_compile)
    def step():
        new, after = update(params, grads, state)
        tf.nest.map_structure(lambda variable, value: variable.assign(value), (params, state), (new, after))

    expected, plain = start, init(start, rule, lr=0.1, transforms=transforms)
    for _ in range(9):
        step()
        expected, plain = update(expected, grads, plain)
    assert step.experimental_get_tracing_count() == 1
    for key, value in expected.items():
        np.testing.assert_allclose(params[key], value, rtol=1e-5)
    assert float(state.reports["last_grad_norm"]) == pytest.approx(float(plain.reports["last_grad_norm"]), rel=1e-6)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_computes_in_float32_and_keeps_averages_there(dtype, traced):
    params = [tf.Variable([1.0, -2.0, 3.0], dtype=dtype)]
    state = init(params, "adam", lr=0.125, transforms=[onepass.average(0.999)])
    assert state.tensors["exp_avg"][0].dtype == dtype
    assert state.tensors["average"][0].dtype == tf.float32
    step = tf.function(update) if traced else update
    new, state = step(params, [tf.constant([1.0, -1.0, 0.5], dtype)], state)
    assert new[0].dtype == dtype
    np.testing.assert_array_equal(tf.cast(new[0], "float32"), [0.875, -1.875, 2.875])
    np.testing.assert_allclose(state.tensors["average"][0], [1 - 1.25e-4, -2 + 1.25e-4, 3 - 1.25e-4], rtol=1e-6)


@pytest.mark.parametrize("traced", [False, True])
def test_a_sparse_gradient_counts_as_the_dense_one(traced):
    table = tf.Variable(np.arange(12.0).reshape(4, 3).astype("float32"))

    def gradient():
        with tf.GradientTape() as tape:
            # Row 2 is asked for twice, and rows 0 and 3 never.
            loss = tf.reduce_sum(tf.gather(table, [2, 1, 2]) ** 2)
        return tape.gradient(loss, table)

    assert isinstance(gradient(), tf.IndexedSlices)
    state = init([table], "adam", lr=0.1)

    def step():
        return update([table], [gradient()], state)

    expected, _ = update([table], [tf.convert_to_tensor(gradient())], state)
    found, _ = (tf.function(step) if traced else step)()
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[0][0], table[0])


def test_a_step_whose_number_is_a_python_integer_keeps_float64_bias_corrections():
    """1 - 0.999**t in float32 is off by 6e-5 at t = 1; on the host it is not."""
    params = [tf.constant([1.0])]
    found, _ = update(params, [tf.constant([1e-3])], init(params, "adam", lr=1.0, eps=0.0))
    assert float(found[0][0]) == pytest.approx(0.0, abs=2e-7)


def test_the_traced_step_computes_step_values_in_float64():
    params = [tf.constant([1.0])]
    found, _ = tf.function(update)(params, [tf.constant([1e-3])], init(params, "adam", lr=1.0, eps=0.0))
    assert float(found[0][0]) == pytest.approx(0.0, abs=2e-7)


def test_errors():
    params = {"w": tf.zeros(2)}
    state = init(params, "adam")
    with pytest.raises(ValueError, match=r"grads\['w'\] is missing"):
        update(params, {"w": None}, state)
    with pytest.raises(TypeError, match=r"array of TensorFlow and .* one of NumPy"):
        update(params, {"w": np.zeros(2)}, state)
    with pytest.raises(TypeError, match="is of type int32"):
        init([tf.zeros(2, "int32")], "adam")
