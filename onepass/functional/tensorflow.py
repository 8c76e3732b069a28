"""TensorFlow: tensors and variables, step by step and under ``tf.function``.

`State` is a structure that ``tf.nest`` knows, so that a traced function takes and returns it, and so that variables can
hold it. The training loop of TensorFlow's guide, with the state in variables:

    >>> import tensorflow as tf
    >>> from onepass.functional import init, update
    >>> params = {"w": tf.Variable([[1.0], [2.0]]), "b": tf.Variable([0.5])}
    >>> state = tf.nest.map_structure(tf.Variable, init(params, "adamw", lr=0.1))
    >>> @tf.function
    ... def train(x, y):
    ...     with tf.GradientTape() as tape:
    ...         loss = tf.reduce_mean((x @ params["w"] + params["b"] - y) ** 2)
    ...     grads = tape.gradient(loss, params)
    ...     new, after = update(params, grads, state)
    ...     tf.nest.map_structure(lambda variable, value: variable.assign(value), (params, state), (new, after))
    ...     return loss
    >>> x, y = tf.ones([4, 2]), tf.zeros([4, 1])
    >>> losses = [float(train(x, y)) for _ in range(100)]
    >>> round(losses[0], 2), losses[-1] < 0.01
    (12.25, True)
    >>> int(state.step), train.experimental_get_tracing_count()
    (100, 1)

Gradients of the form ``tf.IndexedSlices``, as an embedding's are, count as the arrays that they stand for: rows that
they leave out have a gradient of zero, and their states go on decaying, as in every other library.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from onepass.functional.api import State, init, update
from onepass.functional.library import Library


def _clip(x: Any, low: Any, high: Any) -> Any:
    x = x if low is None else tf.maximum(x, tf.cast(low, x.dtype))
    return x if high is None else tf.minimum(x, tf.cast(high, x.dtype))


NAMESPACE = SimpleNamespace(
    asarray=lambda x, dtype: tf.constant(x, dtype),
    clip=_clip,
    exp=tf.exp,
    log=tf.math.log,
    maximum=tf.maximum,
    mean=tf.reduce_mean,
    minimum=tf.minimum,
    sign=tf.sign,
    sqrt=tf.sqrt,
    sum=tf.reduce_sum,
    where=tf.where,
)


class TensorFlow(Library):
    """TensorFlow's tensors. Step values are traced in float64 under ``tf.function``, and Python's floats otherwise."""

    name = "TensorFlow"
    xp = NAMESPACE

    def dtype(self, x: Any) -> str:
        return tf.as_dtype(x.dtype).name

    def cast(self, x: Any, dtype: str) -> Any:
        return tf.cast(tf.convert_to_tensor(x), dtype)

    def filled(self, x: Any, value: float, dtype: str) -> Any:
        return tf.fill(tf.shape(x), tf.constant(value, dtype))

    def is_traced(self, x: Any) -> bool:
        return tf.is_tensor(x) and not tf.executing_eagerly()

    def step_value(self, x: Any) -> Any:
        return tf.cast(x, "float64")

    def cond(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
        return tf.cond(condition, yes, no)


def library(package: str) -> Library:
    """The library that serves arrays of this package."""
    return TensorFlow()


def _flatten(state: State) -> tuple[Any, Any]:
    """A state's parts as TensorFlow's arrays: a Python number would be a constant of the traced function."""
    widest = (
        "float64" if tf.float64 in [x.dtype for x in tf.nest.flatten(state.tensors) if tf.is_tensor(x)] else "float32"
    )

    def array(x: Any) -> Any:
        return x if tf.is_tensor(x) else tf.constant(x, widest)

    step = state.step if tf.is_tensor(state.step) else tf.constant(state.step, "int64")
    return state.recipe, (step, *(tf.nest.map_structure(array, part) for part in (state.tensors, state.reports)))


State.__tf_flatten__ = _flatten
State.__tf_unflatten__ = classmethod(lambda cls, recipe, parts: cls(recipe, *parts))

# AutoGraph calls what bears this mark as it is, which is how tf.autograph.experimental.do_not_convert marks a function:
# no Python branch here hangs on a tensor, and rewriting the compiler takes seconds.
for _function in (init, update):
    _function.autograph_info__ = {}
