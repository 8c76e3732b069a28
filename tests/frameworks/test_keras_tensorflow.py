"""The Keras optimizers in TensorFlow's own ways: a loop under ``tf.function``, ``tf.Variable``, distribution."""

import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest

import onepass
from onepass import keras as ours

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the backend is another")

CHAINS = {"Ranger": [], "NAdam": [onepass.clip_norm(1.0), onepass.average(0.9)]}


@pytest.mark.parametrize("kind", ["keras.Variable", "tf.Variable"])
@pytest.mark.parametrize("name", CHAINS)
def test_the_first_step_may_be_traced(name, kind):
    """The states are made within ``tf.function``, of which there is one trace for that and one for all other steps."""
    import tensorflow as tf

    make = keras.Variable if kind == "keras.Variable" else tf.Variable
    grads = [tf.constant([1.0, -1.0]), tf.constant([[1.0, -1.0]])]

    def after_eight_steps(traced):
        variables = [make([1.0, 2.0]), make([[1.0, 2.0]])]
        opt = getattr(ours, name)(0.1, transforms=CHAINS[name])
        step = tf.function(lambda: opt.apply(grads, variables)) if traced else lambda: opt.apply(grads, variables)
        for _ in range(8):
            step()
        if traced:
            assert step.experimental_get_tracing_count() == 2
        return [np.array(v) for v in variables]

    for a, b in zip(after_eight_steps(True), after_eight_steps(False), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


MIRRORED = """
import keras, numpy as np, onepass, tensorflow as tf
from onepass import keras as ours

[device] = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
x = np.random.default_rng(0).standard_normal((64, 3)).astype("float32")
y = x @ np.ones((3, 1), "float32")

def trained(strategy, make):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])
        net.compile(optimizer=make(), loss="mse")
    net.fit(x, y, epochs=3, batch_size=16, verbose=0, shuffle=False)
    return net.get_weights()

for make in (
    lambda: ours.AdamW(0.01, transforms=[onepass.clip_norm(1.0), onepass.average(0.9)]),
    lambda: ours.NAdam(0.01, use_ema=True),
    lambda: ours.Ranger(0.01),
):
    two = trained(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), make)
    for a, b in zip(two, trained(tf.distribute.get_strategy(), make)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
print("alike")
"""


def test_two_replicas_train_as_one_does():
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True)
    assert "alike" in done.stdout, done.stderr[-4000:]
