"""The Keras optimizers in `fit`: what Keras offers for every optimizer, saving and resuming, and what is refused."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
from keras import optimizers as theirs

import onepass
from onepass import keras as ours
from onepass.functional.families import FAMILIES

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).standard_normal((64, 3)).astype("float32")
Y = X @ np.array([[1.0], [2.0], [3.0]], "float32")


def model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((3,)), *layers])


def fit(net, epochs=1):
    net.fit(X, Y, epochs=epochs, batch_size=16, verbose=0, shuffle=False)
    return weights(net)


def trained(opt, epochs=3, **arguments):
    net = model()
    net.compile(optimizer=opt, loss="mse", **arguments)
    fit(net, epochs)
    return net


def weights(net):
    return [keras.ops.convert_to_numpy(v) for v in net.trainable_variables]


def assert_same(a, b, rtol=2e-5):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)


def assert_trains_alike(mine, other):
    assert_same(weights(trained(mine)), weights(trained(other)))


# What Keras offers for every optimizer. Its AdamW has another epsilon: inside the bias correction, and 1e-7.


def test_adamw_is_keras_adamw():
    assert_trains_alike(ours.AdamW(0.01, weight_decay=0.1, eps=1e-7), theirs.AdamW(0.01, weight_decay=0.1))


def test_a_keras_schedule_is_followed():
    schedule = theirs.schedules.ExponentialDecay(0.1, 3, 0.5)
    assert_trains_alike(ours.SGD(schedule), theirs.SGD(schedule))


def test_a_callable_rate_is_followed():
    assert_trains_alike(ours.SGD(lambda: 0.05), theirs.SGD(lambda: 0.05))


@pytest.mark.parametrize(
    "arguments",
    [
        {"clipnorm": 0.1},
        {"global_clipnorm": 0.1},
        {"clipvalue": 0.01},
        {"use_ema": True, "ema_momentum": 0.9},
        {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 2},
        {"loss_scale_factor": 8.0},
        {"gradient_accumulation_steps": 2},
        {"gradient_accumulation_steps": 2, "clipnorm": 0.1},
    ],
    ids=lambda arguments: "-".join(arguments),
)
def test_what_keras_does_for_any_optimizer(arguments):
    assert_trains_alike(ours.SGD(0.1, **arguments), theirs.SGD(0.1, **arguments))


def test_states_wait_while_gradients_accumulate():
    """Four batches an epoch, two to a step; the step count that corrects the bias counts steps."""
    mine = ours.AdamW(0.01, weight_decay=0.1, eps=1e-7, gradient_accumulation_steps=2)
    assert_trains_alike(mine, theirs.AdamW(0.01, weight_decay=0.1, gradient_accumulation_steps=2))


def test_a_loss_scale_optimizer_wraps_it():
    mine = theirs.LossScaleOptimizer(ours.AdamW(0.01, weight_decay=0.1, eps=1e-7))
    assert_trains_alike(mine, theirs.LossScaleOptimizer(theirs.AdamW(0.01, weight_decay=0.1)))


@pytest.mark.parametrize("by", ["var_names", "var_list"])
def test_variables_are_excluded_from_weight_decay(by, tmp_path):
    found = []
    for opt in (ours.AdamW(0.01, weight_decay=0.5, eps=1e-7), theirs.AdamW(0.01, weight_decay=0.5)):
        net = model()
        opt.exclude_from_weight_decay(**{by: ["bias"] if by == "var_names" else net.trainable_variables[:1]})
        net.compile(optimizer=opt, loss="mse")
        found.append(fit(net, 2))
        if opt.__module__ == "onepass.keras":
            net.save(tmp_path / "model.keras")
            again, further = keras.saving.load_model(tmp_path / "model.keras"), net
    assert_same(*found)
    assert max(np.abs(a - b).max() for a, b in zip(found[0], weights(trained(ours.AdamW(0.01), 2)), strict=True)) > 1e-3
    for a, b in zip(fit(again), fit(further), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("way", [{"run_eagerly": True}, {"jit_compile": True}], ids=lambda way: "-".join(way))
@pytest.mark.parametrize("name", ["NAdam", "RAdam"])
def test_every_way_of_running_gives_the_same(name, way):
    if BACKEND == "torch" and "jit_compile" in way:
        pytest.skip("torch.compile needs a C++ compiler and minutes")
    chain = [onepass.clip_norm(1.0), onepass.lookahead(k=3)]
    nets = [
        trained(getattr(ours, name)(0.01, transforms=chain), **options) for options in ({"jit_compile": False}, way)
    ]
    assert_same(*map(weights, nets))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_dtype_policies(policy):
    keras.config.set_dtype_policy(policy)
    try:
        net = trained(ours.AdamW(0.01, transforms=[onepass.average(0.999)]))
    finally:
        keras.config.set_dtype_policy("float32")
    opt = net.optimizer
    if policy == "mixed_float16":
        assert isinstance(opt, theirs.LossScaleOptimizer)
        opt = opt.inner_optimizer
    stored = "float32" if "mixed" in policy else policy
    held = {v.path.rpartition("kernel_")[2]: keras.backend.standardize_dtype(v.dtype) for v in opt.variables}
    assert held["exp_avg"] == stored
    assert held["average"] == "float32"
    assert int(opt.iterations) > 5
    assert all(np.isfinite(w.astype("float32")).all() for w in weights(net))


def test_the_rate_can_be_assigned():
    net = trained(ours.SGD(0.1), 1)
    before = weights(net)
    net.optimizer.learning_rate = 0.0
    assert_same(before, fit(net), 0.0)


def test_an_embedding_counts_every_row_however_often_it_is_asked_for():
    """TensorFlow gives its gradient by rows, some of them twice; a product with one-hot rows has the whole of it."""
    tokens, targets = np.arange(16).reshape(8, 2) % 7, np.ones((8, 1))
    found = []
    for one_hot in (False, True):
        keras.utils.set_random_seed(0)
        layer = keras.layers.Dense(3, use_bias=False) if one_hot else keras.layers.Embedding(10, 3)
        net = keras.Sequential(
            [keras.Input((2, 10) if one_hot else (2,)), layer, keras.layers.Flatten(), keras.layers.Dense(1)]
        )
        net.set_weights([np.full(w.shape, 0.1) for w in net.get_weights()])
        net.compile(optimizer=ours.Adam(0.1, eps=1e-3), loss="mse")
        x = np.eye(10)[tokens] if one_hot else tokens
        net.fit(x, targets, epochs=3, batch_size=4, verbose=0, shuffle=False)
        found.append(weights(net))
    assert_same(*found)


# Our own


def test_slow_weights_start_where_the_first_step_finds_the_weights():
    net = model()
    opt = ours.SGD(0.0, transforms=[onepass.lookahead(k=1)])
    net.compile(optimizer=opt, loss="mse")
    opt.build(net.trainable_variables)
    net.set_weights([np.ones_like(w) for w in net.get_weights()])
    assert all((w == 1).all() for w in fit(net))


def test_averages_take_the_place_of_the_weights_and_give_it_back():
    net = trained(ours.SGD(0.1, transforms=[onepass.average(0.9)]))
    before = weights(net)
    with net.optimizer.averaged():
        inside = weights(net)
    assert_same(before, weights(net), 0.0)
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(before, inside, strict=True))
    with pytest.raises(RuntimeError, match=r"step inside `with opt.averaged\(\)`"), net.optimizer.averaged():
        fit(net)
    with pytest.raises(RuntimeError, match="keeps no averages"), trained(ours.SGD(0.1)).optimizer.averaged():
        pass


def test_the_norm_of_the_gradients_is_told():
    opt = ours.SGD(0.0, transforms=[onepass.clip_norm(1.0)])
    v = keras.Variable([0.0, 0.0], name="v")
    opt.apply([keras.ops.convert_to_tensor([3.0, 4.0])], [v])
    assert opt.last_grad_norm == 5.0
    with pytest.raises(AttributeError, match="has measured no norm"):
        _ = ours.SGD().last_grad_norm


def test_a_variable_without_a_gradient_is_left_alone():
    a, b = keras.Variable([1.0], name="a"), keras.Variable([1.0], name="b")
    opt = ours.Adam(0.1)
    opt.build([a, b])
    g = keras.ops.convert_to_tensor([1.0])
    opt.apply([g, g], [a, b])
    opt.apply([g], [b])
    np.testing.assert_allclose([float(a[0]), float(b[0])], [0.9, 0.8], rtol=1e-6)
    opt.apply([g, g], [a, b])
    np.testing.assert_allclose(float(b[0]), 0.7, rtol=1e-6)


# Saving


@pytest.mark.parametrize("name", ["AdamW", "NAdam", "RAdam", "Ranger", "RMSprop"])
def test_training_resumed_is_training_uninterrupted(name, tmp_path):
    flags = {"AdamW": {"amsgrad": True}, "RMSprop": {"momentum": 0.9}}.get(name, {})
    chain = [onepass.clip_norm(1.0), onepass.average(0.9)]

    def make():
        decay = onepass.decay.independent(0.01)
        return getattr(ours, name)(0.01, weight_decay=decay, transforms=chain, **flags)

    whole = trained(make(), 4)
    half = trained(make(), 2)
    half.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is getattr(ours, name)
    fit(again, 2)
    for a, b in zip(weights(whole), weights(again), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(whole.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_config_makes_the_same_optimizer(name):
    schedule = theirs.schedules.CosineDecay(0.1, 10)
    given = {"maximize": True, "clipnorm": 1.0, "weight_decay": onepass.decay.cautious(0.1)}
    opt = getattr(ours, name)(schedule, transforms=[onepass.clip_value(0.5), onepass.cautious()], **given)
    again = theirs.deserialize(theirs.serialize(opt))
    assert again.get_config() == opt.get_config()
    assert again._settings.recipe == opt._settings.recipe


def test_what_is_ones_own_is_saved_by_its_name(tmp_path):
    @onepass.rule
    def my_sign(g, m, *, momentum=0.9):
        """Step by the sign."""
        m = onepass.ema(m, g, momentum)
        return onepass.sign(m), m

    @onepass.transform
    def halve(g, *, times=1.0):
        return g / (2 * times)

    kind = ours.optimizer(my_sign)
    assert kind.__name__ == "MySign"
    net = trained(kind(0.01, momentum=0.5, transforms=[halve(times=2.0)]), 1)
    net.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="custom_objects"):
        keras.saving.load_model(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"halve": halve})
    assert again.optimizer.momentum == 0.5
    assert_same(fit(net), fit(again), 0.0)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"beta_1": 0.9}, TypeError, "AdamW takes no 'beta_1'; it takes learning_rate, betas, eps"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate must lie in"),
        ({"learning_rate": "1e-3"}, TypeError, "learning_rate takes a number"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must lie in"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay must lie in"),
        ({"transforms": [onepass.clip_norm]}, TypeError, "call it"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, ValueError, "Only one of"),
        ({"gradient_accumulation_steps": 1}, ValueError, ">= 2"),
        ({"learning_rate": lambda: 0.1, "weight_decay": onepass.decay.independent(0.1)}, ValueError, "lr_max=..."),
    ],
    ids=str,
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        ours.AdamW(**arguments)


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("SGD", {"nesterov": True}, "nesterov=True needs momentum > 0"),
        ("SGD", {"dampening": 0.5}, "dampening=0.5 needs momentum > 0"),
        ("RMSprop", {"momentum": -1.0}, "momentum must lie in"),
    ],
)
def test_flags_that_contradict_one_another(name, flags, message):
    with pytest.raises(ValueError, match=message):
        getattr(ours, name)(**flags)


def test_a_height_is_asked_for_where_a_schedule_hides_it():
    @onepass.rule
    def plain(g):
        return g

    kind = ours.optimizer(plain, weight_decay="independent")
    with pytest.raises(ValueError, match="independent decay follows the learning rate"):
        kind(theirs.schedules.CosineDecay(0.1, 10), weight_decay=0.1)
    kind(theirs.schedules.CosineDecay(0.1, 10))
    kind(0.1, weight_decay=0.1)


def test_hyperparameters_are_read_and_not_written():
    opt = ours.AdamW(betas=(0.8, 0.9))
    assert opt.betas == (0.8, 0.9)
    for name in ("betas", "weight_decay", "transforms"):
        with pytest.raises(AttributeError, match=f"{name} is fixed"):
            setattr(opt, name, 0.5)
    with pytest.raises(ValueError, match="must lie in"):
        opt.learning_rate = -0.1
    with pytest.raises(AttributeError, match="has no attribute 'alpha'"):
        _ = opt.alpha


def test_what_cannot_be_trained():
    with pytest.raises(TypeError, match="only floats can be trained"):
        ours.AdamW().build([keras.Variable([1], dtype="int32", trainable=False, name="count")])
    with pytest.raises(TypeError, match="takes a rule"):
        ours.optimizer("adam")
    opt = ours.AdamW()
    opt.build([keras.Variable([1.0])])
    with pytest.raises(ValueError, match="comes before build"):
        opt.exclude_from_weight_decay(var_names=["bias"])
