"""Paddle's tools around our optimizers: checkpoints, `paddle.Model`, and what is refused."""

import copy
import io

import numpy as np
import paddle
import pytest
from paddle_helpers import OURS, THEIRS, give, network, parameter, train, values

import onepass
from onepass.functional.families import FAMILIES

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
