"""RMSprop, plain and centered."""

from onepass.lang import ema, rule, sqrt


@rule(
    paper="Tieleman & Hinton 2012",
    like="torch.optim.RMSprop",
    lr=1e-2,
    state={"v": "square_avg"},
    ranges={"alpha": "[0, inf)"},
)
def rmsprop(g, v, *, alpha=0.99, eps=1e-8):
    """Divide by a moving root mean square of the gradient. Torch's variant: eps is added outside the root."""
    v = ema(v, g * g, alpha)
    return g / (sqrt(v) + eps), v


@rule(
    paper="arXiv:1308.0850",
    like="torch.optim.RMSprop",
    lr=1e-2,
    state={"v": "square_avg", "g_bar": "grad_avg"},
    ranges={"alpha": "[0, inf)"},
)
def centered_rmsprop(g, v, g_bar, *, alpha=0.99, eps=1e-8):
    """RMSprop that divides by a moving standard deviation: the mean square less the squared mean."""
    v = ema(v, g * g, alpha)
    g_bar = ema(g_bar, g, alpha)
    return g / (sqrt(v - g_bar * g_bar) + eps), v, g_bar
