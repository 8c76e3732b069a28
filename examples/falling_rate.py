"""Why the rate must fall near the optimum: at a constant rate, the noise of the gradient holds the loss up.

Gradient descent with rate η on h x²/2, with noise of variance σ² in the gradient, settles at a mean loss of
η σ² / (2 (2 - η h)), near to proportional to η. A high rate is fast and ends high, a low one slow and low; a rate that
falls is both fast and low.
"""

import numpy as np
from picture import BLUE, CYAN, GREEN, RED, options, plt, save

from onepass.functional import init, update
from onepass.schedules import cosine

CURVATURE, NOISE = 1.0, 1.0


def losses(rule, rate, steps, copies, **hyperparameters):
    """The mean loss over independent copies of x, all from 3, before each step and after the last."""
    random = np.random.default_rng(0)
    x = np.full(copies, 3.0)
    state = init(x, rule, lr=rate(1), **hyperparameters)
    found = [CURVATURE * np.mean(x**2) / 2]
    for step in range(1, steps + 1):
        x, state = update(x, CURVATURE * x + random.normal(0, NOISE, copies), state, lr=rate(step))
        found.append(CURVATURE * np.mean(x**2) / 2)
    return np.array(found)


def main():
    given = options(__doc__)
    steps, copies = (2500, 500) if given.quick else (3000, 4000)
    rates = {0.3: RED, 0.03: GREEN, 0.01: CYAN}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    figure.suptitle("A constant rate stops at its noise floor; a falling one does not")
    floors = {}
    for lr, colour in rates.items():
        path = losses("sgd", lambda step, lr=lr: lr, steps, copies)
        floors[lr] = path[-steps // 4 :].mean()
        left.loglog(np.arange(1, steps + 2), path, color=colour, label=f"constant {lr}")
    falling = losses("sgd", cosine(0.3, 0.0, steps=steps), steps, copies)
    left.loglog(np.arange(1, steps + 2), falling, color=BLUE, linewidth=2, label="cosine, 0.3 to 0")
    left.set(title="SGD on x²/2 with noise", xlabel="step", ylabel="mean loss")
    left.legend(loc="lower left")
    end = falling[-5:].mean()
    print(
        f"sgd: constant rates end at {', '.join(f'{floors[lr]:.5f} (rate {lr})' for lr in rates)}; falling at {end:.6f}"
    )

    grid = np.logspace(-2, 0, 5 if given.quick else 9)
    theory = grid * NOISE**2 / (2 * (2 - grid * CURVATURE))
    for rule, colour, marker in (("sgd", RED, "o"), ("adam", BLUE, "s")):
        found = [losses(rule, lambda step, lr=lr: lr, steps, copies)[-steps // 4 :].mean() for lr in grid]
        right.loglog(grid, found, marker, color=colour, label=rule)
        if rule == "sgd":
            print(f"sgd's floor is within {100 * np.abs(found / theory - 1).max():.1f} % of theory at every rate")
    right.loglog(grid, theory, color=RED, linewidth=1, label="sgd, in theory: η σ² / (2 (2 − η h))")
    right.set(title="Where a constant rate ends", xlabel="learning rate η", ylabel="mean loss in the end")
    right.legend(loc="upper left")
    save(figure, given.out, "falling_rate")


if __name__ == "__main__":
    main()
