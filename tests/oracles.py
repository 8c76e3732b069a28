"""Optimizers written straight from the papers and from the authors' code, in NumPy float64, one tensor at a time.

They share nothing with the library: no rule, no word of its language.
"""

import numpy as np


class Yogi:
    """Zaheer et al. 2018 with zero initial states and bias correction."""

    def __init__(self, lr=1e-2, betas=(0.9, 0.999), eps=1e-3, weight_decay=0.0, form="decoupled"):
        self.lr, self.betas, self.eps, self.weight_decay, self.form = lr, betas, eps, weight_decay, form
        self.m = self.v = 0.0
        self.t = 0

    def __call__(self, p, g):
        self.t += 1
        b1, b2 = self.betas
        if self.form == "l2":
            g = g + self.weight_decay * p
        self.m = b1 * self.m + (1 - b1) * g
        self.v = self.v - (1 - b2) * np.sign(self.v - g**2) * g**2
        m_hat = self.m / (1 - b1**self.t)
        v_hat = self.v / (1 - b2**self.t)
        if self.form == "decoupled":
            p = p * (1 - self.lr * self.weight_decay)
        return p - self.lr * m_hat / (np.sqrt(v_hat) + self.eps)


class RAdam:
    """Liu et al. 2019 as torch has it: adaptive where rho > 5, else a plain averaged step."""

    def __init__(self, lr, betas, eps):
        self.lr, self.betas, self.eps = lr, betas, eps
        self.m = self.v = 0.0
        self.t = 0

    def __call__(self, p, g):
        self.t += 1
        t, (b1, b2) = self.t, self.betas
        self.m = b1 * self.m + (1 - b1) * g
        self.v = b2 * self.v + (1 - b2) * g**2
        rho_inf = 2 / (1 - b2) - 1
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        m_hat = self.m / (1 - b1**t)
        if rho <= 5:
            return p - self.lr * m_hat
        r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        return p - self.lr * r * m_hat * np.sqrt(1 - b2**t) / (np.sqrt(self.v) + self.eps)


class Lookahead:
    """Zhang et al. 2019: slow weights from the start, synchronised every k steps of any inner optimizer."""

    def __init__(self, inner, k, alpha):
        self.inner, self.k, self.alpha = inner, k, alpha
        self.slow = None
        self.t = 0

    def __call__(self, p, g):
        if self.slow is None:
            self.slow = p.copy()
        p = self.inner(p, g)
        self.t += 1
        if self.t % self.k == 0:
            self.slow = self.slow + self.alpha * (p - self.slow)
            p = self.slow.copy()
        return p


class Ranger:
    """Wright 2019: centralised gradients, RAdam, Lookahead; decoupled weight decay."""

    def __init__(self, lr=1e-3, betas=(0.95, 0.999), eps=1e-5, weight_decay=0.0, k=6, alpha=0.5):
        inner = RAdam(lr, betas, eps)

        def step(p, g):
            if g.ndim > 1:
                g = g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True)
            return inner(p * (1 - lr * weight_decay), g)

        self.whole = Lookahead(step, k, alpha)

    def __call__(self, p, g):
        return self.whole(p, g)


class Momentum:
    """SGD with Polyak's buffer."""

    def __init__(self, lr, momentum, weight_decay=0.0, form="l2", schedule=lambda t: 1.0):
        self.lr, self.momentum, self.weight_decay, self.form = lr, momentum, weight_decay, form
        self.schedule = schedule
        self.buffer = 0.0
        self.t = 0

    def __call__(self, p, g):
        self.t += 1
        scale = self.schedule(self.t)
        if self.form == "l2":
            g = g + self.weight_decay * p
        self.buffer = self.momentum * self.buffer + g
        if self.form == "decoupled":
            p = p * (1 - self.lr * scale * self.weight_decay)
        if self.form == "independent":
            p = p * (1 - scale * self.weight_decay)
        return p - self.lr * scale * self.buffer
