"""Every optimizer as one of Paddle's: ``onepass.paddle.AdamW(learning_rate=3e-4, parameters=model.parameters())``.

>>> import paddle, onepass.paddle
>>> model = paddle.nn.Linear(3, 1)
>>> schedule = paddle.optimizer.lr.CosineAnnealingDecay(learning_rate=3e-4, T_max=1000)
>>> opt = onepass.paddle.AdamW(learning_rate=schedule, parameters=model.parameters(), weight_decay=0.1)
"""

from onepass.functional.paddle_optimizer import CLASSES, Optimizer, optimizer

Adadelta, Adagrad, Adam, AdamW = (CLASSES[name] for name in ("Adadelta", "Adagrad", "Adam", "AdamW"))
Adamax, NAdam, RAdam, RMSprop = (CLASSES[name] for name in ("Adamax", "NAdam", "RAdam", "RMSprop"))
Ranger, SGD, Yogi = (CLASSES[name] for name in ("Ranger", "SGD", "Yogi"))

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Ranger",
    "Yogi",
    "optimizer",
]
