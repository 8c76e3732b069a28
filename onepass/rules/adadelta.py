"""Adadelta."""

from onepass.lang import ema, rule, sqrt


@rule(
    paper="arXiv:1212.5701",
    like="torch.optim.Adadelta",
    lr=1.0,
    state={"v": "square_avg", "a": "acc_delta"},
    ranges={"rho": "[0, 1]"},
)
def adadelta(g, v, a, *, rho=0.9, eps=1e-6):
    """Give the step the units of the parameter: divide by the RMS of gradients, multiply by the RMS of past steps.

    Torch's variant: a learning rate of 1 by default; the steps are averaged before the learning rate is applied.
    """
    v = ema(v, g * g, rho)
    delta = sqrt(a + eps) / sqrt(v + eps) * g
    a = ema(a, delta * delta, rho)
    return delta, v, a
