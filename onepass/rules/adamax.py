"""Adamax."""

from onepass.lang import absolute, ema, maximum, rule


@rule(paper="arXiv:1412.6980", like="torch.optim.Adamax", lr=2e-3, state={"m": "exp_avg", "w": "exp_inf"})
def adamax(g, m, w, t, *, betas=(0.9, 0.999), eps=1e-8):
    """Adam with the infinity norm: divide by a decaying maximum of the gradient's magnitude.

    Torch's variant: eps is added to the magnitude inside the maximum.
    """
    b1, b2 = betas
    m = ema(m, g, b1)
    w = maximum(b2 * w, absolute(g) + eps)
    return m / ((1 - b1**t) * w), m, w
