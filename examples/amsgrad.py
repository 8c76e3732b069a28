"""A convex problem on which Adam goes to the worst point, and AMSGrad and Yogi to the best.

S. J. Reddi, S. Kale, S. Kumar, "On the Convergence of Adam and Beyond" (arXiv:1904.09237). On [-1, 1], one steep slope
points right and many gentle ones left; over a period they sum to a slope whose minimum is x = -1. Adam divides the rare
steep gradient by a root that it has itself just raised, and the gentle ones by a root that has forgotten it.

- Theorem 1: slopes C, -1, -1, with β₁ = 0, β₂ = 1 / (1 + C²), α_t = α / √t, from x = 1, for any C > 2 and
  α < √(1 - β₂). Here C = 3 and α = 0.5.
- Section 5: slopes 1010, then 100 times -10, with β₁ = 0.9 and β₂ = 0.99; here α = 1 and α_t = α / √t, from x = 0.

In section 5's problem AMSGrad and Yogi are not at -1 yet when the picture ends: they divide by roots near the steep
slope's size, and so take tens of thousands of steps and, Yogi, whose root grows for the first fifty periods, millions.
It shows which way each goes.

The paper corrects no bias; `onepass` does, as torch, which no longer matters after some 1 / (1 - β₂) steps.
"""

import numpy as np
from picture import BLUE, GREEN, RED, options, plt, save

from onepass.functional import init, update

RULES = {"adam": ("Adam", RED), "amsgrad": ("AMSGrad", BLUE), "yogi": ("Yogi", GREEN)}


def trajectory(rule, slopes, steps, *, alpha, start, betas):
    """The iterates x_t, projected on [-1, 1] after every step."""
    x = np.array([start])
    state = init(x, rule, lr=alpha, betas=betas, eps=1e-8)
    path = [x]
    for t in range(1, steps + 1):
        gradient = np.array([slopes[(t - 1) % len(slopes)]])
        x, state = update(x, gradient, state, lr=alpha / np.sqrt(t))
        x = np.clip(x, -1.0, 1.0)
        path.append(x)
    return np.concatenate(path)


def main():
    given = options(__doc__)
    panels = {
        "Theorem 1: slopes 3, −1, −1": ([3.0, -1.0, -1.0], {"alpha": 0.5, "start": 1.0, "betas": (0.0, 0.1)}),
        "Section 5: slopes 1010, then 100 × −10": ([1010.0] + [-10.0] * 100,
                                                   {"alpha": 1.0, "start": 0.0, "betas": (0.9, 0.99)}),
    }  # fmt: skip
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    figure.suptitle("Adam goes to the worst point of a convex problem, AMSGrad and Yogi towards the best")
    for (title, (slopes, settings)), ax in zip(panels.items(), axes, strict=True):
        steps = (8_080 if given.quick else 20_200) if len(slopes) > 3 else 3_000
        for rule, (name, colour) in RULES.items():
            path = trajectory(rule, slopes, steps, **settings)
            early, late = (path[at : at + len(slopes)].mean() for at in (steps // 3, steps - len(slopes)))
            print(
                f"{title}: {name}'s mean x over a period: {early:+.4f} after {steps // 3} steps, {late:+.4f} in the end"
            )
            ax.semilogx(np.arange(1, steps + 2), path, color=colour, label=name, linewidth=1.4)
        for x, name in ((-1, "best"), (1, "worst")):
            ax.axhline(x, color="black", linestyle=":", linewidth=1)
            ax.annotate(name, (0.02, x), (0, 4), xycoords=("axes fraction", "data"), textcoords="offset points")
        ax.set(title=title, xlabel="step t", ylim=(-1.1, 1.2))
    axes[0].set_ylabel("x")
    axes[0].legend(loc="center left", bbox_to_anchor=(0, 0.35))
    save(figure, given.out, "amsgrad")


if __name__ == "__main__":
    main()
