"""JAX's arrays: the golden trajectories, and the pure functions under jit, scan, vmap and grad."""

import subprocess
import sys
from contextlib import nullcontext

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import onepass
from onepass import average, clip_norm, lookahead, scalar, where
from onepass.functional import init, update

pytestmark = pytest.mark.filterwarnings("error")


def follow(case, dtype, step):
    known = golden.load(case)
    params = [jnp.asarray(p, dtype) for p in known.start]
    state = init(params, case.rule, lr=golden.LR, weight_decay=case.weight_decay, transforms=case.transforms)
    worst = 0.0
    for t in range(1, golden.STEPS + 1):
        params, state = step(params, [jnp.asarray(g, dtype) for g in known.gradients[t - 1]], state, lr=case.lr(t))
        if t in known.params:
            worst = max(worst, golden.error(params, known.params[t]))
    assert all(p.dtype == dtype for p in params)
    return max([worst, *(golden.error(state.tensors[key], value) for key, value in known.states.items())])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rule", golden.RULES)
def test_golden_trajectories(rule, dtype):
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        for case in golden.CASES:
            if case.rule == rule:
                assert follow(case, dtype, update) < golden.bound(dtype), case


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rule", golden.RULES)
def test_golden_trajectories_under_jit(rule, dtype):
    """The step count and the learning rate are traced, as are scalar states."""
    case = golden.Case(rule, "independent", "average" if rule == "ranger" else "lookahead")
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        assert follow(case, dtype, jax.jit(update)) < golden.bound(dtype)


def test_float64_without_x64():
    """The step count is computed with in float64: in float32, 0.999**t at a million steps is off by a thousandth."""
    state = init(jnp.ones(2), "adam", lr=1.0, betas=(0.0, 0.9999999))
    state = jax.tree.map(lambda x: x, state)
    params, after = jax.jit(update)(jnp.zeros(2), jnp.ones(2), state)
    # v = 1e-7 is freed of exactly that factor: the step is g / |g|.
    np.testing.assert_allclose(params, [-1.0, -1.0], rtol=2e-6)
    assert after.tensors["exp_avg_sq"].dtype == jnp.float32


def tree():
    params = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": (jnp.array([0.1, 0.2]), None)}
    return params, jax.tree.map(lambda p: p * p - 0.5, params)


def transforms_of(name):
    return [clip_norm(1.0), average(0.9), *([] if name == "ranger" else [lookahead(k=2)])]


@pytest.mark.parametrize("name", ["adamw", "nadam", "ranger"])
def test_a_scan_equals_a_loop(name):
    params, grads = tree()
    state = init(params, name, lr=0.1, transforms=transforms_of(name))
    step = jax.jit(update)
    looped, later = params, state
    for _ in range(7):
        looped, later = step(looped, grads, later)

    def body(carry, _):
        return update(carry[0], grads, carry[1]), None

    # The carry of a scan has one type: what a step returns, not the plain numbers of `init`.
    first = step(params, grads, state)
    (scanned, last), _ = jax.lax.scan(body, first, length=6)
    for ours, theirs in zip(jax.tree.leaves((scanned, last)), jax.tree.leaves((looped, later)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["nadam", "ranger"])
def test_a_second_step_compiles_nothing(name):
    params, grads = tree()
    state = init(params, name, transforms=transforms_of(name))
    step = jax.jit(update)
    params, state = step(params, grads, state)
    params, state = step(params, grads, state)
    compiled = step._cache_size()
    for _ in range(3):
        params, state = step(params, grads, state)
    assert step._cache_size() == compiled


def test_vmap_over_trainings():
    params, grads = tree()

    def train(lr):
        p, state = params, init(params, "radam", weight_decay=0.1)
        for _ in range(7):
            p, state = update(p, grads, state, lr=lr)
        return p

    together = jax.vmap(train)(jnp.array([0.1, 0.01]))
    for i, lr in enumerate((0.1, 0.01)):
        jax.tree.map(
            lambda ours, theirs, i=i: np.testing.assert_allclose(ours[i], theirs, rtol=1e-6), together, train(lr)
        )


def test_each_parameter_may_branch_on_its_own_count():
    @onepass.rule(init={"count": scalar(0.0)})
    def rule(g, count, ndim):
        count = count + ndim
        return where(count > 3, 10 * g, g), count

    params = [jnp.zeros((1, 1)), jnp.zeros(1)]
    state = init(params, rule, lr=1.0)
    step = jax.jit(update)
    for _ in range(2):
        params, state = step(params, [jnp.ones((1, 1)), jnp.ones(1)], state)
    assert [float(p.sum()) for p in params] == [-11.0, -2.0]
    assert [float(x) for x in state.tensors["count"]] == [4.0, 2.0]


def test_errors():
    ones = jnp.ones(2)
    with pytest.raises(TypeError, match=r"params\[0\] is an array of JAX and params\[1\] one of NumPy"):
        init([ones, np.ones(2)], "adam")
    with pytest.raises(TypeError, match="params is of type int32"):
        init(jnp.ones(2, int), "adam")
    with pytest.raises(ValueError, match="lr must lie in"):
        update(ones, ones, init(ones, "adam"), lr=jnp.asarray(-1.0))


def test_onepass_needs_nothing_but_jax():
    code = """
import sys
sys.modules["torch"] = sys.modules["numba"] = None
import jax.numpy as jnp
from onepass.functional import init, update
update(jnp.ones(2), jnp.ones(2), init(jnp.ones(2), "adamw"))
assert "optax" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
