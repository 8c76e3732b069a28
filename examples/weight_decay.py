"""L2 against decoupled weight decay: what is left of a weight, by the size of its gradients.

L2 adds λ θ to the gradient, decoupled decay takes η λ θ from the weight. SGD cannot tell them apart. Momentum gathers
up what L2 adds, so that it counts 1 / (1 - μ) times over. Adam divides it by the size of the gradients, so that L2
spares the very weights whose gradients are large; decoupled decay treats all alike (I. Loshchilov, F. Hutter,
arXiv:1711.05101).
"""

import numpy as np
from picture import BLUE, GREY, RED, options, plt, save

from onepass import decay
from onepass.functional import init, update

RATES = {"sgd": 0.01, "momentum": 0.001, "adam": 0.001}
FORMS = {"L2": (decay.l2, RED, "o"), "decoupled": (decay.decoupled, BLUE, "s")}
DECAY = 0.1


def weights(rule, form, steps, scales, copies=400):
    """Weights that begin at 1 after steps whose gradients are noise of these sizes alone: (scales, copies)."""
    random = np.random.default_rng(0)
    w = np.ones((len(scales), copies))
    state = init(w, rule, lr=RATES[rule], weight_decay=form and form(DECAY))
    for _ in range(steps):
        noise = scales[:, None] * random.normal(0, 1, (len(scales), copies // 2))
        # Each copy has one with the opposite noise, so that the mean shows the decay alone.
        w, state = update(w, np.hstack([noise, -noise]), state)
    return w


def main():
    given = options(__doc__)
    steps = 600 if given.quick else 2000
    scales = np.logspace(-2, 1, 7 if given.quick else 13)
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.2), sharey=True)
    figure.suptitle("L2 and decoupled decay are the same in SGD, and part in momentum and in Adam")
    for rule, ax in zip(RATES, axes, strict=True):
        alone = weights(rule, None, steps, scales)
        found = {name: weights(rule, form, steps, scales) for name, (form, _, _) in FORMS.items()}
        # The noise is the same in both runs, and so falls out.
        kept = {name: 1 + (w - alone).mean(axis=1) for name, w in found.items()}
        apart = np.abs(found["L2"] - found["decoupled"]).max()
        print(f"{rule}: the two forms differ by at most {apart:.1e}; of the weights with the smallest and the largest "
              f"gradients L2 leaves {kept['L2'][0]:.3f} and {kept['L2'][-1]:.3f}, "
              f"decoupled {kept['decoupled'][0]:.3f} and {kept['decoupled'][-1]:.3f}")  # fmt: skip
        expected = (1 - RATES[rule] * DECAY) ** steps
        ax.axhline(expected, color=GREY, linestyle=":", label="(1 − η λ)ᵗ")
        for name, (_, colour, marker) in FORMS.items():
            wide = {"markersize": 9, "markerfacecolor": "none"} if name == "L2" else {"markersize": 4}
            ax.semilogx(scales, kept[name], color=colour, marker=marker, label=name, **wide)
        ax.set(title=f"{rule}, η = {RATES[rule]}", xlabel="size of the gradients", ylim=(-0.05, 1.05))
    axes[0].set_ylabel(f"share of the weight left after {steps} steps, λ = {DECAY}")
    axes[0].legend(loc="center left")
    save(figure, given.out, "weight_decay")


if __name__ == "__main__":
    main()
