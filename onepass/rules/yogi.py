"""Yogi."""

from onepass.lang import ema, rule, sign, sqrt


@rule(
    paper="Zaheer et al., Adaptive Methods for Nonconvex Optimization, NeurIPS 2018",
    lr=1e-2,
    state={"m": "exp_avg", "v": "exp_avg_sq"},
)
def yogi(g, m, v, t, *, betas=(0.9, 0.999), eps=1e-3):
    """Adam whose averaged square moves by an amount that does not depend on how far it has to go.

    Both states start at zero and are freed of their bias, as in the d2l textbook; the paper starts v from a large first
    batch and corrects no bias, and several libraries start both at 1e-6. sign(0) is 0.
    """
    b1, b2 = betas
    m = ema(m, g, b1)
    v = v - (1 - b2) * sign(v - g * g) * (g * g)
    m_hat = m / (1 - b1**t)
    v_hat = v / (1 - b2**t)
    return m_hat / (sqrt(v_hat) + eps), m, v
