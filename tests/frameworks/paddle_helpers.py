"""What the tests of Paddle's optimizers share."""

import numpy as np
import paddle

import onepass.paddle

OURS, THEIRS = onepass.paddle, paddle.optimizer


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
