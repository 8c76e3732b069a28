"""Every rule as a Keras 3 optimizer, under the TensorFlow, JAX and torch backends.

    >>> import keras, onepass, onepass.keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> opt = onepass.keras.AdamW(learning_rate=3e-4, weight_decay=0.1, transforms=[onepass.clip_norm(1.0)])
    >>> model.compile(optimizer=opt, loss="mse")

``learning_rate`` takes Keras's schedules and can be assigned between steps; ``clipnorm``, ``use_ema``, loss scaling,
gradient accumulation and ``exclude_from_weight_decay`` work as for Keras's own optimizers; hyperparameters have torch's
names and defaults. A model is saved and reloaded with its optimizer, transforms included, once this module is imported.
"""

from onepass.functional.keras import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    Ranger,
    RMSprop,
    Yogi,
    optimizer,
)

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
