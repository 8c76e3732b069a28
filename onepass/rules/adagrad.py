"""Adagrad."""

from onepass.lang import rule, sqrt


@rule(
    paper="Duchi et al. 2011",
    like="torch.optim.Adagrad",
    lr=1e-2,
    state={"s": "sum"},
    init={"s": lambda initial_accumulator_value: initial_accumulator_value},
    ranges={"lr_decay": "[0, inf)", "initial_accumulator_value": "[0, inf)"},
)
def adagrad(g, s, t, *, lr_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
    """Divide by the root of the sum of all squared gradients.

    Torch's variant: eps is added outside the root, and the learning rate may fall as 1 / (1 + (t - 1) lr_decay).
    """
    s = s + g * g
    return g / (sqrt(s) + eps) / (1 + (t - 1) * lr_decay), s
