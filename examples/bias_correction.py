"""Adam without bias correction: the same steps by decay rates that depend on t.

Dividing an average that began at zero by 1 - βᵗ is the same as averaging with the rate β(t) = β (1 - βᵗ⁻¹) / (1 - βᵗ),
which is 0 in the first step, so that nothing of the start is kept, and rises to β.
"""

import numpy as np
from picture import BLUE, GREEN, GREY, RED, options, plt, save

import onepass
from onepass.functional import init, update


@onepass.rule
def adam_by_decay(g, m, v, t, *, betas=(0.9, 0.999), eps=1e-8):
    """Adam, its averages free of bias because their decay rates are."""
    m = onepass.ema(m, g, rising(betas[0], t))
    v = onepass.ema(v, g * g, rising(betas[1], t))
    return m / (onepass.sqrt(v) + eps), m, v


@onepass.rule
def adam_uncorrected(g, m, v, *, betas=(0.9, 0.999), eps=1e-8):
    """Adam with the correction simply left out."""
    m = onepass.ema(m, g, betas[0])
    v = onepass.ema(v, g * g, betas[1])
    return m / (onepass.sqrt(v) + eps), m, v


def rising(beta, t):
    return beta * (1 - beta ** (t - 1)) / (1 - beta**t)


def trajectory(rule, steps, dtype):
    """How the parameters of a noisy quadratic move, from the same start and with the same noise."""
    noise = np.random.default_rng(0)
    curvature = np.logspace(-2, 2, 50)
    p = np.ones(50, dtype)
    state = init(p, rule, lr=0.01)
    path = [p]
    for _ in range(steps):
        p, state = update(p, (curvature * (p + noise.normal(0, 0.3, 50))).astype(dtype), state)
        path.append(p)
    return np.array(path, np.float64)


def main():
    given = options(__doc__)
    steps = 500 if given.quick else 3000
    adam, by_decay = (trajectory(rule, steps, np.float64) for rule in ("adam", adam_by_decay))
    left_out = trajectory(adam_uncorrected, steps, np.float64)
    in_float32 = trajectory(adam_by_decay, steps, np.float32) - trajectory("adam", steps, np.float32)
    for name, difference in (("float64", by_decay - adam), ("float32", in_float32), ("left out", left_out - adam)):
        print(f"largest difference from adam over {steps} steps, {name}: {np.abs(difference).max():.1e}")

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    figure.suptitle("Bias correction is a decay rate that starts at zero")
    t = np.arange(1, steps + 1)
    for beta, colour in ((0.9, BLUE), (0.999, GREEN)):
        left.semilogx(t, rising(beta, t), color=colour, label=f"β = {beta}: β (1 − βᵗ⁻¹) / (1 − βᵗ)")
        left.axhline(beta, color=colour, linestyle=":", linewidth=1)
    left.set(title="The decay rate that gives corrected averages", xlabel="step t", ylabel="decay rate β(t)")
    left.legend(loc="lower right")
    for path, colour, name in ((left_out - adam, RED, "correction left out"), (in_float32, GREY, "β(t), float32"),
                               (by_decay - adam, BLUE, "β(t), float64")):  # fmt: skip
        largest = np.abs(path).max(axis=1)[1:]
        right.loglog(t, np.where(largest > 0, largest, np.nan), color=colour, label=name)
    right.set(title="Distance from adam's parameters", xlabel="step t", ylabel="largest difference")
    right.set_ylim(1e-17, 10)
    right.legend(loc="center right", bbox_to_anchor=(1, 0.34))
    save(figure, given.out, "bias_correction")


if __name__ == "__main__":
    main()
