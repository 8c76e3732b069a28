"""MXNet 1.9.1: functional steps of mxnet.np arrays."""

import subprocess
import sys
from pathlib import Path

import golden
import mxnet as mx
import numpy as np
import pytest

import onepass
from onepass.functional import init, update

mx.npx.set_np()
EXAMPLE = Path(__file__).parents[2] / "examples" / "gluon.py"


def trajectory(case, dtype):
    given = golden.load(case)
    params = [mx.np.array(x, dtype=dtype) for x in given.start]
    state = init(params, case.rule, lr=golden.LR, weight_decay=case.weight_decay, transforms=case.transforms)
    for t, gradients in enumerate(given.gradients, 1):
        grads = [mx.np.array(x, dtype=dtype) for x in gradients]
        params, state = update(params, grads, state, lr=case.lr(t))
        if t in golden.RECORDED:
            yield t, [p.asnumpy() for p in params]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", golden.CASES, ids=str)
def test_golden_trajectories(case, dtype):
    expected = golden.load(case).params
    for t, params in trajectory(case, dtype):
        assert golden.error(params, expected[t]) <= golden.bound(dtype), t


def test_autograd_feeds_a_step_and_does_not_follow_it():
    params = {"w": mx.np.array([1.0, -2.0]), "b": mx.np.array(0.5)}
    state = init(params, "adam", lr=0.1)
    for _ in range(3):
        for p in params.values():
            p.attach_grad()
        with mx.autograd.record():
            loss = (params["w"] ** 2).sum() + params["b"] ** 2
        loss.backward()
        params, state = update(params, {name: p.grad for name, p in params.items()}, state)
    assert state.step == 3
    np.testing.assert_allclose(params["w"].asnumpy(), [0.7, -1.7], atol=1e-2)


def test_what_was_passed_in_stays():
    p, g = mx.np.ones((2, 2)), mx.np.full((2, 2), 3.0)
    state = init(p, "momentum", lr=0.1)
    new, after = update(p, g, state)
    new[:] = 7.0
    after.tensors["momentum_buffer"][:] = 7.0
    assert (p.asnumpy() == 1).all()
    assert (g.asnumpy() == 3).all()


def test_infinities_and_nans_go_where_they_would_in_numpy():
    nan, infinity = float("nan"), float("inf")
    values = [nan, infinity, -infinity, 0.0, -3.0]
    for rule in ("yogi", "adamax", "sgd"):
        for transforms in ([], [onepass.clip_value(1.0)], [onepass.cautious_mask()], [onepass.cautious()]):
            found = []
            for make in (lambda x: mx.np.array(x, dtype="float64"), lambda x: np.array(x, dtype="float64")):
                p = make([1.0, 2.0, 3.0, 4.0, 5.0])
                state = init(p, rule, lr=0.1, weight_decay=onepass.decay.cautious(0.1), transforms=transforms)
                with np.errstate(all="ignore"):
                    for _ in range(2):
                        p, state = update(p, make(values), state)
                found.append(p.asnumpy() if isinstance(p, mx.np.ndarray) else p)
            np.testing.assert_allclose(*found, rtol=1e-12, err_msg=f"{rule} {transforms}")


def test_powers_and_logic_of_a_rule_of_ones_own():
    @onepass.rule
    def odd(g, *, power=0.3):
        near = (g > -1.0) & (onepass.norm(g) < 100.0)
        return onepass.where(near | (g > 5.0), onepass.absolute(g) ** power, g)

    g = np.array([0.5, -0.7, -3.0, 9.0])
    new, _ = update(mx.np.array(g, dtype="float64"), mx.np.array(g, dtype="float64"), init(mx.np.array(g), odd, lr=1.0))
    expected, _ = update(g, g, init(g, odd, lr=1.0))
    np.testing.assert_allclose(new.asnumpy(), expected, rtol=1e-14)


def test_float16_is_computed_in_float32_and_stored_as_it_came():
    p, g = mx.np.array([1.0, 2.0], dtype="float16"), mx.np.array([1e-4, 1e-4], dtype="float16")
    state = init(p, "adam", lr=0.1)
    new, after = update(p, g, state)
    assert new.dtype == after.tensors["exp_avg_sq"].dtype == np.float16
    np.testing.assert_allclose(new.asnumpy(), [0.9, 1.9], rtol=1e-3)


def test_an_array_of_the_old_interface_is_refused():
    with pytest.raises(TypeError, match="as_np_ndarray"):
        init(mx.nd.ones((2,)), "adam")


def test_arrays_of_two_libraries_are_refused():
    state = init(mx.np.ones(2), "adam")
    with pytest.raises(TypeError, match=r"params is an array of MXNet and grads one of NumPy"):
        update(mx.np.ones(2), np.ones(2), state)


def test_neither_torch_nor_numba_is_needed():
    code = "import sys, mxnet, onepass.functional.mxnet; assert not {'torch', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_gluon_example_trains():
    done = subprocess.run([sys.executable, EXAMPLE], check=True, capture_output=True, text=True)
    first, *_, last = [float(line.split()[-1]) for line in done.stdout.splitlines() if "loss" in line]
    assert last < first / 10
