"""The Keras optimizers' numbers under one backend, KERAS_BACKEND's; `test_keras_backends` runs this for the others.

Steps are taken as Keras takes them: under ``tf.function`` with TensorFlow, as a pure function under ``jax.jit`` with
JAX, and in place with torch.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import golden
import keras
import pytest

import onepass
import onepass.keras
from onepass.functional.families import FAMILIES

BACKEND = keras.backend.backend()

# Where a rule is a flag of a class.
FLAGS = {
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "centered_rmsprop": ("RMSprop", {"centered": True}),
}
CLASSES = {title.lower(): title for title in FAMILIES}


def make(rule, **arguments):
    title, flags = FLAGS.get(rule, (CLASSES.get(rule), {}))
    return getattr(onepass.keras, title)(**flags, **arguments)


def compiled(opt, variables):
    """A function that takes a step of the variables by their gradients, compiled as the backend's trainer does it."""
    opt.build(variables)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        step = tf.function(lambda grads: opt.apply(grads, variables), jit_compile=True)
        return lambda grads: step([tf.convert_to_tensor(g) for g in grads])
    if BACKEND == "jax":
        import jax

        step = jax.jit(opt.stateless_apply)

        def write(grads):
            new, states = step([v.value for v in opt.variables], grads, [v.value for v in variables])
            for v, value in zip([*variables, *opt.variables], [*new, *states], strict=True):
                v.assign(value)

        return write
    return lambda grads: opt.apply(grads, variables)


def eager(opt, variables):
    return lambda grads: opt.apply(grads, variables)


@pytest.fixture(params=["float32", "float64"])
def floatx(request):
    if BACKEND == "jax":
        import jax

        if request.param == "float64" and not jax.config.jax_enable_x64:
            pytest.skip("JAX_ENABLE_X64 is not set")
    before = keras.config.floatx()
    keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx(before)


def follow(case, dtype, way):
    known = golden.load(case)
    variables = [keras.Variable(p, dtype=dtype, name=f"v{i}") for i, p in enumerate(known.start)]
    opt = make(case.rule, learning_rate=golden.LR, weight_decay=case.weight_decay, transforms=case.transforms)
    step = way(opt, variables)
    for t in range(1, golden.STEPS + 1):
        opt.learning_rate = case.lr(t)
        step([keras.ops.convert_to_tensor(g, dtype=dtype) for g in known.gradients[t - 1]])
        if t in known.params:
            found = [keras.ops.convert_to_numpy(v) for v in variables]
            assert golden.error(found, known.params[t]) < golden.bound(dtype), (case, t)
    held = {v.path.rpartition("/")[2]: keras.ops.convert_to_numpy(v) for v in opt.variables}
    for key, theirs in known.states.items():
        ours = [held[key] if key in held else held[f"v{i}_{key}"] for i in range(len(variables))]
        assert golden.error(ours, theirs) < golden.bound(dtype), (case, key)


@pytest.mark.parametrize("rule", golden.RULES)
def test_golden_trajectories(rule, floatx):
    """For each rule some forms of decay and transforms, all of them in turn: compiling is slow."""
    cases = [case for case in golden.CASES if case.rule == rule]
    for case in cases[golden.RULES.index(rule) % 6 :: 6]:
        follow(case, floatx, compiled)


@pytest.mark.skipif(BACKEND == "torch", reason="there is one way to step with torch")
def test_golden_trajectories_eagerly(floatx):
    for case in golden.CASES:
        if case.decay in ("none", "independent") and case.rule in ("adamw", "nadam", "radam"):
            follow(case, floatx, eager)
