"""Adam and AMSGrad. AdamW is Adam with decoupled weight decay."""

from onepass.lang import ema, maximum, rule, sqrt


@rule(paper="arXiv:1412.6980", like="torch.optim.Adam", state={"m": "exp_avg", "v": "exp_avg_sq"})
def adam(g, m, v, t, *, betas=(0.9, 0.999), eps=1e-8):
    """Average the gradient, and divide by the root of its averaged square, both freed of their bias towards zero.

    Torch's variant, which is the paper's Algorithm 1: eps is added outside the root, after the bias correction.
    """
    b1, b2 = betas
    m = ema(m, g, b1)
    v = ema(v, g * g, b2)
    m_hat = m / (1 - b1**t)
    v_hat = v / (1 - b2**t)
    return m_hat / (sqrt(v_hat) + eps), m, v


@rule(
    paper="arXiv:1904.09237",
    like="torch.optim.Adam(amsgrad=True)",
    state={"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"},
)
def amsgrad(g, m, v, v_max, t, *, betas=(0.9, 0.999), eps=1e-8):
    """Adam that divides by the largest averaged square so far, so that its steps cannot grow back.

    Torch's variant: the maximum is taken over the raw average and corrected for bias afterwards. The paper corrects no
    bias; optax takes the maximum of the corrected average.
    """
    b1, b2 = betas
    m = ema(m, g, b1)
    v = ema(v, g * g, b2)
    v_max = maximum(v_max, v)
    m_hat = m / (1 - b1**t)
    v_hat = v_max / (1 - b2**t)
    return m_hat / (sqrt(v_hat) + eps), m, v, v_max
