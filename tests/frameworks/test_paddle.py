"""Paddle: functional steps of its tensors, and its own form of every optimizer."""

import copy
import io
import os
import re
import subprocess
import sys
from contextlib import nullcontext

import golden
import numpy as np
import paddle
import pytest

import onepass
import onepass.paddle
from onepass.functional import init, paddle_step, update
from onepass.functional.families import FAMILIES

OURS, THEIRS = onepass.paddle, paddle.optimizer
# The classes of the names in the golden file, with the flags that choose the rule.
CLASSES = {title.lower(): (title, {}) for title in FAMILIES} | {
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "centered_rmsprop": ("RMSprop", {"centered": True}),
}


def parameter(value, dtype="float32", **attributes):
    value = np.asarray(value)
    attributes.setdefault("initializer", paddle.nn.initializer.Constant(0.0))
    made = paddle.create_parameter(list(value.shape), dtype, attr=paddle.ParamAttr(**attributes))
    made.set_value(paddle.to_tensor(value, dtype=dtype))
    return made


def give(params, gradients):
    """Leave these gradients in the parameters."""
    for p, g in zip(params, gradients, strict=True):
        p.grad = paddle.to_tensor(g, dtype=p.dtype)


def values(params):
    return [p.astype("float64").numpy() for p in params]


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


def network():
    with paddle.utils.unique_name.guard():
        model = paddle.nn.Sequential(paddle.nn.Linear(5, 7), paddle.nn.Tanh(), paddle.nn.Linear(7, 2))
    rng = np.random.default_rng(0)
    for p in model.parameters():
        p.set_value(rng.standard_normal(p.shape).astype("float32"))
    return model


def batch(i):
    return paddle.to_tensor(np.random.default_rng(100 + i).standard_normal((4, 5)).astype("float32"))


def train(model, opt, steps, start=0):
    for i in range(start, start + steps):
        (model(batch(i)) ** 2).mean().backward()
        opt.step()
        opt.clear_grad()
        if isinstance(opt._learning_rate, THEIRS.lr.LRScheduler):
            opt._learning_rate.step()
    return values(model.parameters())


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


@pytest.mark.parametrize("way", ["step", "minimize"])
def test_what_a_grad_scaler_found_skips_the_step(way):
    p, q = parameter([1.0]), parameter([1.0])
    opt, plain = OURS.AdamW(0.1, [p]), OURS.AdamW(0.1, [q])

    def step_of_a_scaler(found):
        # A GradScaler is idle on a CPU; this is how it talks to an optimizer.
        opt._set_auxiliary_var("found_inf", paddle.to_tensor([found]))
        opt.step() if way == "step" else opt.minimize(p.sum())
        return opt._get_auxiliary_var("found_inf")

    give([p, q], [[2.0], [2.0]])
    assert step_of_a_scaler(True) is True
    assert values([p]) == [1.0]
    assert opt.state_dict() == {}
    assert step_of_a_scaler(False) is False
    plain.step()
    assert values([p]) == values([q])
    # Without the scaler the next step is taken, whatever was found before.
    step_of_a_scaler(True)
    opt.step()
    plain.step()
    assert values([p]) == values([q])


def test_an_idle_grad_scaler_is_no_hindrance():
    p = parameter([1.0])
    opt, scaler = OURS.SGD(0.5, [p]), paddle.amp.GradScaler()
    loss = scaler.scale((p * 2.0).sum())
    loss.backward()
    scaler.step(opt)
    scaler.update()
    assert values([p]) == [0.0]
    scaler.minimize(opt, loss)
    assert values([p]) == [-1.0]


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
    assert "onepass" not in one.stderr
    assert without.stderr.count("UserWarning: onepass: the fused kernels need Numba") == 1
    numbers = [[float(x) for x in re.findall(r"\d+\.\d+", done.stdout.splitlines()[-1])] for done in (one, without)]
    np.testing.assert_allclose(*numbers, rtol=1e-6)


# Checkpoints


@pytest.mark.parametrize("title", sorted(FAMILIES))
@pytest.mark.parametrize("fresh", [True, False])
def test_a_saved_training_goes_on_as_if_it_had_not_stopped(title, fresh, tmp_path):
    def start():
        model = network()
        schedule = THEIRS.lr.StepDecay(0.01, 2, 0.5)
        transforms = [] if title == "Ranger" else [onepass.clip_norm(1.0), onepass.lookahead(k=3)]
        options = {"momentum": 0.9} if title in ("SGD", "RMSprop") else {}
        return model, getattr(OURS, title)(schedule, model.parameters(), 0.1, transforms=transforms, **options)

    model, opt = start()
    expected = train(model, opt, 8)
    model, opt = start()
    train(model, opt, 4)
    paddle.save(model.state_dict(), str(tmp_path / "model.pdparams"))
    paddle.save(opt.state_dict(), str(tmp_path / "opt.pdopt"))
    if fresh:
        model, opt = start()
    else:
        train(model, opt, 2)
    model.set_state_dict(paddle.load(str(tmp_path / "model.pdparams")))
    opt.set_state_dict(paddle.load(str(tmp_path / "opt.pdopt")))
    for a, b in zip(train(model, opt, 4, start=4), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_master_weights_are_saved_too():
    def start():
        p = parameter([1.0, 2.0], "bfloat16", name="w")
        return p, OURS.AdamW(1e-3, [p], multi_precision=True)

    with paddle.utils.unique_name.guard():
        p, opt = start()
    for _ in range(6):
        give([p], [[0.5, -0.25]])
        opt.step()
    expected = opt.state_dict()["master_weights"]["w"].numpy()
    with paddle.utils.unique_name.guard():
        p, opt = start()
    for i in range(6):
        if i == 3:
            file = io.BytesIO()
            paddle.save(opt.state_dict(), file)
            file.seek(0)
            q = p
            with paddle.utils.unique_name.guard():
                p, opt = start()
            p.set_value(q)
            opt.set_state_dict(paddle.load(file))
        give([p], [[0.5, -0.25]])
        opt.step()
    np.testing.assert_array_equal(opt.state_dict()["master_weights"]["w"].numpy(), expected)
    with pytest.raises(ValueError, match="multi_precision"):
        OURS.AdamW(1e-3, [p]).set_state_dict(opt.state_dict())


def stepped(title="AdamW", **options):
    p = parameter([1.0, 2.0])
    opt = getattr(OURS, title)(0.1, [p], **options)
    give([p], [[1.0, 1.0]])
    opt.step()
    return p, opt


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    p, opt = stepped()
    good = {key: x.numpy() for key, x in opt.state_dict().items()}
    before = copy.deepcopy(good)
    moment = f"{p.name}_exp_avg_0"
    for change, message in (
        ({moment: None}, "lacks"),
        ({moment: np.zeros(3, "float32")}, r"shape \(3,\)"),
        ({"other_exp_avg_0": np.zeros(2)}, "unique_name"),
        ({"LR_Scheduler": {"last_epoch": 1}}, "take the entry out"),
        ({"master_weights": {p.name: np.zeros(2)}}, "multi_precision"),
    ):
        bad = {key: x for key, x in {**good, **change}.items() if x is not None}
        with pytest.raises(ValueError, match=message):
            opt.set_state_dict(bad)
        for key, x in opt.state_dict().items():
            np.testing.assert_array_equal(x.numpy(), before[key])
    opt.set_state_dict(good)
    with pytest.raises(ValueError, match="LR_Scheduler"):
        OURS.AdamW(THEIRS.lr.StepDecay(0.1, 2), [p]).set_state_dict(good)


def test_the_name_stands_in_the_keys():
    p, opt = stepped(name="mine")
    assert set(opt.state_dict()) == {f"{p.name}_mine_{key}_0" for key in ("exp_avg", "exp_avg_sq", "step")}
    assert opt.get_opti_var_name_list() == list(opt.state_dict())


# Paddle's tools


def test_model_fit_save_and_load(tmp_path):
    inputs = np.random.default_rng(0).standard_normal((32, 5)).astype("float32")
    data = paddle.io.TensorDataset([paddle.to_tensor(inputs), paddle.to_tensor(inputs[:, :2] * 0.5)])

    def prepared():
        network_ = network()
        model = paddle.Model(network_)
        schedule = THEIRS.lr.StepDecay(0.05, 5, 0.8)
        model.prepare(OURS.AdamW(schedule, network_.parameters()), paddle.nn.MSELoss())
        return model

    model = prepared()
    before = model.evaluate(data, batch_size=8, verbose=0)["loss"]
    model.fit(data, batch_size=8, epochs=5, shuffle=False, verbose=0)
    assert np.mean(model.evaluate(data, batch_size=8, verbose=0)["loss"]) < 0.5 * np.mean(before)
    model.save(str(tmp_path / "checkpoint"))
    model.fit(data, batch_size=8, epochs=2, shuffle=False, verbose=0)
    expected = values(model.parameters())
    model = prepared()
    model.load(str(tmp_path / "checkpoint"))
    model.fit(data, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(values(model.parameters()), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_rule_of_ones_own():
    @onepass.rule
    def sign_momentum(g, m, *, momentum=0.9):
        m = onepass.ema(m, g, momentum)
        return onepass.sign(m), m

    cls = OURS.optimizer(sign_momentum)
    assert cls.__name__ == "SignMomentum"
    p = parameter([1.0, -2.0])
    opt = cls(learning_rate=0.5, parameters=[p], weight_decay=0.1, momentum=0.5)
    give([p], [[1.0, -3.0]])
    opt.step()
    np.testing.assert_allclose(values([p]), [[1 * 0.95 - 0.5, -2 * 0.95 + 0.5]], rtol=1e-6)
    with pytest.raises(TypeError, match=r"@onepass\.rule"):
        OURS.optimizer(lambda g: g)


# Bad input


@pytest.mark.parametrize(("options", "kind", "message"), [
    ({"betas": (1.5, 0.9)}, ValueError, "1.5"),
    ({"beta1": 0.9}, TypeError, "it takes betas, eps, amsgrad"),
    ({"learning_rate": -1.0}, ValueError, "-1 does not"),
    ({"learning_rate": "0.1"}, TypeError, "float or LRScheduler"),
    ({"parameters": None}, ValueError, r"model\.parameters\(\)"),
    ({"parameters": []}, ValueError, "no parameters"),
    ({"parameters": [np.ones(2)]}, TypeError, "ndarray"),
    ({"parameters": [{"parameters": []}]}, ValueError, "'params'"),
    ({"weight_decay": -0.1}, ValueError, "-0.1"),
    ({"weight_decay": "0.1"}, TypeError, "0.1"),
    ({"grad_clip": 1.0}, TypeError, "grad_clip"),
    ({"transforms": [onepass.clip_norm]}, TypeError, "call it"),
    ({"lr_ratio": lambda p: -1.0}, ValueError, "-1.0 times"),
    ({"learning_rate": THEIRS.lr.NoamDecay(8, 4), "weight_decay": onepass.decay.independent(0.1)}, ValueError,
     "lr_max"),
])  # fmt: skip
def test_bad_arguments_are_named(options, kind, message):
    options = {"parameters": [parameter([1.0])], **options}
    with pytest.raises(kind, match=message):
        OURS.AdamW(**options)


def test_bad_parameters_and_groups_are_named():
    p = parameter([1.0])
    with pytest.raises(ValueError, match="given twice"):
        OURS.SGD(0.1, [p, p])
    with pytest.raises(ValueError, match="given twice"):
        OURS.SGD(0.1, [{"params": [p]}, {"params": [p]}])
    with pytest.raises(TypeError, match="int64"):
        OURS.SGD(0.1, [paddle.to_tensor([1, 2])])
    with pytest.raises(TypeError, match="'beta1'"):
        OURS.AdamW(0.1, [{"params": [p], "beta1": 0.8}])
    with pytest.raises(ValueError, match="-1"):
        OURS.AdamW(0.1, [{"params": [p], "learning_rate": -1}])
    with pytest.raises(ValueError, match="not one of this optimizer's"):
        OURS.SGD(0.1, [p]).apply_gradients([(parameter([1.0]), paddle.ones([1]))])
    opt = OURS.SGD(0.1, [p])
    with pytest.raises(ValueError, match=r"gradient of .* has the shape \(2,\)"):
        opt.apply_gradients([(p, paddle.ones([2]))])
    with pytest.raises(ValueError, match="int64"):
        opt.apply_gradients([(p, paddle.to_tensor([1]))])
    give([p], [[1.0]])
    opt.set_lr(-1.0)
    with pytest.raises(ValueError, match="-1 does not"):
        opt.step()


def test_static_mode_is_refused():
    p = parameter([1.0])
    opt = OURS.SGD(0.1, [p])
    paddle.enable_static()
    try:
        with pytest.raises(RuntimeError, match="disable_static"):
            OURS.SGD(0.1, [p])
        with pytest.raises(RuntimeError, match="dynamic mode"):
            opt._append_optimize_op(None, None)
    finally:
        paddle.disable_static()

    @paddle.jit.to_static(full_graph=True)
    def whole_step():
        opt.step()

    with pytest.raises(Exception, match="dynamic mode"):
        whole_step()
