"""Paddle: functional steps of its tensors, and the steps of its own form of every optimizer."""

import os
import re
import subprocess
import sys
from contextlib import nullcontext

import golden
import numpy as np
import paddle
import pytest
from paddle_helpers import OURS, THEIRS, give, network, parameter, train, values

import onepass
from onepass.functional import init, paddle_step, update
from onepass.functional.families import FAMILIES

# The classes of the names in the golden file, with the flags that choose the rule.
CLASSES = {title.lower(): (title, {}) for title in FAMILIES} | {
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "centered_rmsprop": ("RMSprop", {"centered": True}),
}


# The functional form


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", golden.CASES, ids=str)
def test_golden_trajectories(case, dtype):
    given = golden.load(case)
    params = [paddle.to_tensor(x, dtype=dtype) for x in given.start]
    state = init(params, case.rule, lr=golden.LR, weight_decay=case.weight_decay, transforms=case.transforms)
    for t, gradients in enumerate(given.gradients, 1):
        grads = [paddle.to_tensor(x, dtype=dtype) for x in gradients]
        params, state = update(params, grads, state, lr=case.lr(t))
        if t in golden.RECORDED:
            assert golden.error(values(params), given.params[t]) <= golden.bound(dtype), t


def test_infinities_and_nans_go_where_they_would_in_numpy():
    gradient = [float("nan"), float("inf"), float("-inf"), 0.0, -3.0]
    for rule in ("yogi", "adamax", "sgd"):
        for transforms in ([], [onepass.clip_value(1.0)], [onepass.cautious_mask()], [onepass.cautious()]):
            found = []
            for make in (lambda x: paddle.to_tensor(x, dtype="float64"), lambda x: np.array(x, dtype="float64")):
                p = make([1.0, 2.0, 3.0, 4.0, 5.0])
                state = init(p, rule, lr=0.1, weight_decay=onepass.decay.cautious(0.1), transforms=transforms)
                for _ in range(2):
                    p, state = update(p, make(gradient), state)
                found.append(np.asarray(p))
            np.testing.assert_allclose(*found, rtol=1e-12, err_msg=f"{rule} {transforms}")


def test_an_odd_power_is_as_precise_as_its_type():
    @onepass.rule
    def rooted(g, *, power=0.3):
        return onepass.sign(g) * onepass.absolute(g) ** power

    g = np.array([0.5, -0.7, -3.0, 9.0])
    new, _ = update(paddle.to_tensor(g), paddle.to_tensor(g), init(paddle.to_tensor(g), rooted, lr=1.0))
    expected, _ = update(g, g, init(g, rooted, lr=1.0))
    np.testing.assert_allclose(new.numpy(), expected, rtol=1e-14)


def test_torch_is_not_needed():
    code = "import sys, onepass.paddle; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# The optimizers


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", golden.CASES, ids=str)
def test_every_optimizer_follows_the_golden_trajectories(case, dtype, path):
    given = golden.load(case)
    title, flags = CLASSES[case.rule]
    params = [parameter(x, dtype) for x in given.start]
    opt = getattr(OURS, title)(golden.LR, params, weight_decay=case.weight_decay, transforms=case.transforms, **flags)
    for t, gradients in enumerate(given.gradients, 1):
        opt.set_lr(case.lr(t))
        give(params, gradients)
        opt.step()
        if t in golden.RECORDED:
            assert golden.error(values(params), given.params[t]) <= golden.bound(dtype), t


@pytest.fixture(params=["kernels", "operations"])
def path(request, monkeypatch):
    """Both ways in which a step is taken."""
    if request.param == "operations":
        monkeypatch.setattr("onepass.functional.paddle_step.obstacle", lambda members: "the test says so")
        monkeypatch.setattr("onepass.functional.paddle_step.say_once", lambda message: None)
    return request.param


SAME = [
    (OURS.SGD, {"weight_decay": 0.1}, THEIRS.SGD, {"weight_decay": 0.1}),
    (OURS.SGD, {"momentum": 0.9}, THEIRS.Momentum, {}),
    (OURS.SGD, {"momentum": 0.9, "nesterov": True}, THEIRS.Momentum, {"use_nesterov": True}),
    (OURS.Adagrad, {"eps": 1e-6}, THEIRS.Adagrad, {}),
    (OURS.Adadelta, {"rho": 0.95}, THEIRS.Adadelta, {}),
    (OURS.Adam, {"weight_decay": 0.1}, THEIRS.Adam, {"weight_decay": 0.1}),
    (OURS.Adam, {"amsgrad": True}, THEIRS.Adam, {"amsgrad": True}),
    (OURS.AdamW, {"weight_decay": 0.1}, THEIRS.AdamW, {"weight_decay": 0.1}),
    (OURS.AdamW, {}, THEIRS.AdamW, {}),
    (OURS.Adamax, {}, THEIRS.Adamax, {}),
    (OURS.NAdam, {}, THEIRS.NAdam, {}),
    (OURS.RAdam, {}, THEIRS.RAdam, {}),
]


@pytest.mark.parametrize(("ours", "mine", "theirs", "its"), SAME, ids=lambda x: getattr(x, "__name__", ""))
def test_paddles_optimizer_of_the_same_variant_gives_the_same(ours, mine, theirs, its, path):
    found = []
    for make, options in ((ours, mine), (theirs, its)):
        model = network()
        found.append(train(model, make(learning_rate=0.01, parameters=model.parameters(), **options), 10))
    for a, b in zip(*found, strict=True):
        # Ten steps of some thirty roundings each, in a network that may enlarge them.
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_schedulers_drive_the_rate():
    found = []
    for make in (OURS.AdamW, THEIRS.AdamW):
        model = network()
        schedule = THEIRS.lr.LinearWarmup(THEIRS.lr.StepDecay(0.1, 4, 0.5), 3, 0.0, 0.1)
        opt = make(learning_rate=schedule, parameters=model.parameters())
        found.append(train(model, opt, 10))
        assert opt.get_lr() == schedule()
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_the_rate_is_set_by_hand_or_replaced_by_a_scheduler():
    p = parameter([1.0])
    opt = OURS.SGD(0.5, [p])
    opt.set_lr(0.25)
    give([p], [[1.0]])
    opt.step()
    opt.set_lr_scheduler(THEIRS.lr.StepDecay(0.125, 1))
    opt.step()
    assert values([p]) == [0.625]
    with pytest.raises(RuntimeError):
        opt.set_lr(1.0)


def test_groups_differ_in_rate_decay_clip_and_hyperparameters():
    a, b = parameter([1.0]), parameter([1.0])
    groups = [
        {"params": a, "learning_rate": 0.5, "weight_decay": 0.0, "momentum": 0.5},
        {"params": [b], "grad_clip": paddle.nn.ClipGradByValue(0.25)},
    ]
    opt = OURS.SGD(1.0, groups, weight_decay=0.5, momentum=0.9)
    for _ in range(2):
        give([a, b], [[1.0], [1.0]])
        opt.step()
    opt.clear_grad()
    # a: buffers 1 and 1.5, half the rate. b: 0.25 + 0.5 is 0.75; then 0.9 * 0.75 + 0.25 + 0.5 * 0.25 is 1.05.
    np.testing.assert_allclose(values([a, b]), [[1 - 0.5 - 0.75], [0.25 - 1.05]], rtol=1e-6)
    assert all(p.grad is None or float(p.grad.sum()) == 0 for p in (a, b))


def test_what_spans_the_model_spans_the_groups():
    a, b = parameter([0.0]), parameter([0.0])
    opt = OURS.SGD(1.0, [{"params": [a]}, {"params": [b]}], transforms=[onepass.clip_norm(1.0)])
    give([a, b], [[3.0], [4.0]])
    opt.step()
    np.testing.assert_allclose(values([a, b]), [[-0.6], [-0.8]], rtol=1e-5)
    assert opt.reports["last_grad_norm"] == pytest.approx(5.0)


@pytest.mark.parametrize("clip", [
    paddle.nn.ClipGradByGlobalNorm(0.1), paddle.nn.ClipGradByNorm(0.1), paddle.nn.ClipGradByValue(0.01),
])  # fmt: skip
def test_paddles_clipping(clip):
    found = []
    for make in (OURS.AdamW, THEIRS.AdamW):
        model = network()
        found.append(train(model, make(learning_rate=0.01, parameters=model.parameters(), grad_clip=clip), 5))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("form", [paddle.regularizer.L2Decay(0.1), paddle.regularizer.L1Decay(0.1), 0.1])
def test_paddles_regularizers_and_a_parameters_own(form):
    found = []
    for make in (OURS.SGD, THEIRS.SGD):
        own = paddle.regularizer.L2Decay(0.5)
        params = [parameter([1.0, -2.0]), parameter([1.0, -2.0], regularizer=own, learning_rate=0.5)]
        opt = make(learning_rate=0.1, parameters=params, weight_decay=form)
        for _ in range(3):
            give(params, [[0.1, 0.2]] * 2)
            opt.step()
        found.append(values(params))
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_adamw_leaves_out_decay_by_name():
    found = []
    for make in (OURS.AdamW, THEIRS.AdamW):
        model = network()
        keep = {p.name for p in model.parameters() if p.ndim > 1}
        opt = make(
            learning_rate=0.1, parameters=model.parameters(), weight_decay=0.5,
            apply_decay_param_fun=lambda name, keep=keep: name in keep,
        )  # fmt: skip
        found.append(train(model, opt, 4))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)


def test_lr_ratio_scales_each_parameters_rate():
    a, b = parameter([0.0]), parameter([0.0])
    ratios = {a.name: 0.5, b.name: 2.0}
    opt = OURS.SGD(1.0, [a, b], lr_ratio=lambda p: ratios[p.name])
    give([a, b], [[1.0], [1.0]])
    opt.step()
    assert values([a, b]) == [-0.5, -2.0]


def test_frozen_parameters_and_those_without_a_gradient_stay():
    a, b, c = parameter([1.0]), parameter([1.0]), parameter([1.0])
    opt = OURS.AdamW(0.1, [a, b, c])
    give([a, b], [[1.0], [1.0]])
    b.stop_gradient = True
    opt.step()
    assert values([a]) != [1.0]
    assert values([b, c]) == [1.0, 1.0]
    assert not any(key.startswith((b.name, c.name)) for key in opt.state_dict())
    OURS.AdamW(0.1, [c]).step()


def test_minimize_chooses_parameters_and_returns_pairs():
    a, b = parameter([1.0]), parameter([1.0])
    opt = OURS.SGD(1.0, [a, b])
    loss = (a * 2 + b).sum()
    loss.backward()
    operators, pairs = opt.minimize(loss, no_grad_set={b})
    assert operators == []
    assert [p.name for p, _ in pairs] == [a.name]
    assert values([a, b]) == [-1.0, 1.0]
    opt.minimize(loss, parameters=[b])
    assert values([a, b]) == [-1.0, 0.0]
    with pytest.raises(ValueError, match="static mode"):
        opt.minimize(loss, startup_program=object())


@pytest.mark.parametrize("clip", [None, paddle.nn.ClipGradByValue(0.5), paddle.nn.ClipGradByGlobalNorm(1.0)])
def test_sparse_gradients_step_every_row(clip):
    found = []
    for sparse in (True, False):
        table = paddle.nn.Embedding(6, 3, sparse=sparse)
        table.weight.set_value(np.arange(18, dtype="float32").reshape(6, 3))
        opt = OURS.AdamW(0.1, table.parameters(), grad_clip=clip, transforms=[onepass.centralize()])
        for _ in range(3):
            (table(paddle.to_tensor([1, 4, 1])) * paddle.to_tensor([[1.0], [2.0], [3.0]])).sum().backward()
            assert table.weight.grad.is_selected_rows() == sparse
            opt.step()
            opt.clear_grad()
        found.append(values(table.parameters()))
    np.testing.assert_allclose(*found, rtol=1e-6)


# Low precision


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_master_weights_carry_what_the_stored_type_cannot(dtype, path):
    p, q = parameter([1.0, 2.0], dtype), parameter([1.0, 2.0])
    low, full = OURS.AdamW(1e-4, [p], multi_precision=True), OURS.AdamW(1e-4, [q])
    for _ in range(30):
        for opt, x in ((low, p), (full, q)):
            give([x], [[0.5, -0.25]])
            opt.step()
    state = low.state_dict()
    np.testing.assert_allclose(state["master_weights"][p.name].numpy(), q.numpy(), rtol=1e-6)
    assert state["master_weights"][p.name].dtype == state[f"{p.name}_exp_avg_0"].dtype == paddle.float32
    assert (p == state["master_weights"][p.name].astype(dtype)).all()
    assert p.dtype == getattr(paddle, dtype)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_without_master_weights_states_are_stored_as_the_parameter_is(dtype, path):
    p = parameter([1.0, 2.0], dtype)
    opt = OURS.AdamW(0.1, [p])
    give([p], [[0.5, -0.25]])
    opt.step()
    assert opt.state_dict()[f"{p.name}_exp_avg_0"].dtype == p.dtype
    np.testing.assert_allclose(values([p]), [[0.899, 2.098]], rtol=2**-7)


def test_bfloat16_parameters_take_float32_gradients():
    model = paddle.nn.Linear(1, 2)
    p = model.weight
    p.set_value(np.array([[1.0, 2.0]], "float32"))
    opt = OURS.AdamW(0.01, [p])
    # What paddle.amp.decorate(level="O2", master_grad=True) does where there is a GPU; on a CPU it does nothing.
    model.to(dtype="bfloat16")
    opt._multi_precision = True
    for _ in range(3):
        p.grad = paddle.to_tensor([[0.1, 0.2]])
        opt.step()
    master = opt.state_dict()["master_weights"][p.name]
    np.testing.assert_allclose(master.numpy(), [[0.97, 1.97]], rtol=1e-3)
    assert (p == master.astype("bfloat16")).all()


# Autograd


def test_a_step_leaves_leaves_and_is_seen_by_autograd(path):
    p = parameter([1.0, 2.0])
    opt = OURS.SGD(0.1, [p], momentum=0.9)
    kept = (p * p).sum()
    address, version = p.data_ptr(), p.inplace_version
    give([p], [[1.0, 1.0]])
    opt.step()
    assert p.data_ptr() == address
    assert p.is_leaf
    assert not p.stop_gradient
    assert p.inplace_version > version
    # What was saved for the backward pass has been written over.
    with pytest.raises(Exception, match="version"):
        kept.backward()


def test_what_the_kernels_cannot_take_is_left_to_paddles_operations():
    paddle_step.say_once.cache_clear()
    found = []
    for g in (paddle.to_tensor([[0.1, 0.2], [0.3, 0.4]]), paddle.to_tensor([[0.1, 0.3], [0.2, 0.4]]).T):
        p = parameter([[1.0, 2.0], [4.0, 5.0]])
        opt = OURS.AdamW(0.1, [p])
        with nullcontext() if g.is_contiguous() else pytest.warns(UserWarning, match="not contiguous; Paddle's own"):
            opt.apply_gradients([(p, g)])
        found.append(values([p]))
    np.testing.assert_allclose(*found, rtol=1e-6)


STEPS = """
import sys, paddle
HEAD
import onepass, onepass.paddle
params = [paddle.create_parameter([n], "float32") for n in (3, 70_000, 300_001)]
for p in params:
    p.set_value(paddle.linspace(-1, 1, p.shape[0]))
opt = onepass.paddle.AdamW(0.1, params, transforms=[onepass.clip_norm(1.0)])
for i in range(3):
    for p in params:
        p.grad = paddle.cos(paddle.arange(p.shape[0], dtype="float32") + i)
    opt.step()
print([float(p.astype("float64").abs().sum()) for p in params], opt.reports)
"""


def test_any_number_of_threads_and_no_numba_give_the_same():
    def run(head="", threads=1):
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        return subprocess.run(
            [sys.executable, "-c", STEPS.replace("HEAD", head)], env=env, check=True, capture_output=True, text=True
        )

    one, two, without = run(), run(threads=2), run(head="sys.modules['llvmlite'] = None")
    assert one.stdout.splitlines()[-1] == two.stdout.splitlines()[-1]
    assert "UserWarning: onepass" not in one.stderr
    assert without.stderr.count("UserWarning: onepass: the fused kernels need Numba") == 1
    numbers = [[float(x) for x in re.findall(r"\d+\.\d+", done.stdout.splitlines()[-1])] for done in (one, without)]
    np.testing.assert_allclose(*numbers, rtol=1e-6)
