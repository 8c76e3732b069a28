"""NAdam."""

from onepass.lang import ema, rule, scalar, sqrt


@rule(
    paper="Dozat 2016",
    like="torch.optim.NAdam",
    lr=2e-3,
    state={"m": "exp_avg", "v": "exp_avg_sq", "prod": "mu_product"},
    init={"prod": scalar(1.0)},
    ranges={"momentum_decay": "[0, inf)"},
)
def nadam(g, m, v, prod, t, *, betas=(0.9, 0.999), eps=1e-8, momentum_decay=4e-3):
    """Adam with Nesterov's momentum, whose coefficient warms up with the step.

    Torch's variant, which follows Dozat's momentum schedule. Keras, optax and AlgoPerf's NAdamW are other algorithms.
    """
    b1, b2 = betas
    mu = b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    mu_next = b1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    prod = prod * mu
    m = ema(m, g, b1)
    v = ema(v, g * g, b2)
    m_bar = (1 - mu) / (1 - prod) * g + mu_next / (1 - prod * mu_next) * m
    v_hat = v / (1 - b2**t)
    return m_bar / (sqrt(v_hat) + eps), m, v, prod
