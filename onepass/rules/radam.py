"""RAdam."""

from onepass.lang import ema, rule, sqrt, where


@rule(paper="arXiv:1908.03265", like="torch.optim.RAdam", state={"m": "exp_avg", "v": "exp_avg_sq"})
def radam(g, m, v, t, *, betas=(0.9, 0.999), eps=1e-8):
    """Adam whose adaptive step is scaled by how far its variance can be trusted, and left out while it cannot.

    Torch's variant: adaptive where rho > 5 (the authors: rho >= 5), a step of plain averaged gradient before that (the
    authors: none), and eps added to the root of the raw average.
    """
    b1, b2 = betas
    m = ema(m, g, b1)
    v = ema(v, g * g, b2)
    m_hat = m / (1 - b1**t)
    rho_inf = 2 / (1 - b2) - 1
    rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
    r = sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return where(rho > 5, r * m_hat * sqrt(1 - b2**t) / (sqrt(v) + eps), m_hat), m, v
