"""What the learning rate does: the gap to the optimum after two epochs, over five decades of it.

Linear regression on the airfoil data of the d2l textbook where they are found (``--data-dir``), else on a synthetic
stand-in of the same shape. The rules treat every number of an array alone, so the seeds run side by side in one array.
"""

from pathlib import Path

import numpy as np
from picture import BLUE, CYAN, GREEN, GREY, MARKERS, PURPLE, RED, options, plt, save

from onepass.functional import init, update
from onepass.study import airfoil
from onepass.study.errors import StudyError

RULES = {"sgd": GREY, "momentum": PURPLE, "adagrad": CYAN, "rmsprop": GREEN, "adam": BLUE, "yogi": RED}
WORST = 10.0  # what a gap beyond is drawn as


def data(folder):
    try:
        return "airfoil", *airfoil.read(folder)
    except StudyError as error:
        print(f"a synthetic stand-in, for there is {error}")
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (1500, 5)) @ random.normal(0, 0.6, (5, 5))
    return "synthetic", features, features @ random.normal(0, 0.5, (5, 1)) + random.normal(0, 0.7, (1500, 1))


def gaps(rule, lr, features, targets, seeds, epochs=2):
    """How far each seed's loss, the mean of (ŷ - y)²/2 over all rows, ends above the least."""
    x = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    least = airfoil.least_squares(features, targets)
    random = np.random.default_rng(0)
    w = np.append(random.normal(0, 0.01, (seeds, x.shape[1] - 1)), np.zeros((seeds, 1)), axis=1)
    state = init(w, rule, lr=lr)
    for _ in range(epochs):
        orders = np.array([random.permutation(len(x)) for _ in range(seeds)])
        for rows in np.split(orders, len(x) // 10, axis=1):
            error = np.einsum("sbf,sf->sb", x[rows], w) - targets[rows, 0]
            w, state = update(w, np.einsum("sb,sbf->sf", error, x[rows]) / 10, state)
    return ((x @ w.T - targets) ** 2).mean(axis=0) / 2 - least


def main():
    given = options(__doc__, lambda parser: parser.add_argument("--data-dir", type=Path, help="folder of the data"))
    name, features, targets = data(given.data_dir)
    rates = np.logspace(-4, 1, 6 if given.quick else 16)
    figure, ax = plt.subplots(figsize=(9, 5))
    figure.suptitle("Every optimizer has a learning rate of its own")
    for (rule, colour), marker in zip(RULES.items(), MARKERS, strict=False):
        with np.errstate(over="ignore", invalid="ignore"):
            found = np.array([gaps(rule, lr, features, targets, seeds=20) for lr in rates])
        found = np.where(np.isfinite(found) & (found < WORST), found, WORST)
        low, middle, high = np.quantile(found, (0.25, 0.5, 0.75), axis=1)
        best = int(middle.argmin())
        low_end, high_end = middle[[0, -1]] / middle[best]
        print(f"{rule}: best at lr {rates[best]:.3g} with a gap of {middle[best]:.5f}; "
              f"{low_end:.0f} times that at the lowest rate, {high_end:.0f} times at the highest")  # fmt: skip
        ax.loglog(rates, middle, color=colour, marker=marker, markersize=4, label=rule, linewidth=1.4)
        ax.fill_between(rates, low, high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(rates[best], middle[best], marker, color=colour, markersize=10)
    ax.axhline(WORST, color="black", linestyle=":", linewidth=1)
    ax.annotate("diverged, or a gap of 10 and more", (rates[0], WORST), (0, 4), textcoords="offset points")
    ax.set(xlabel="learning rate", ylabel="gap to the least loss: median and quartiles of 20 seeds", ylim=(None, 25))
    ax.set_title(f"linear regression on {name} data, 2 epochs; the large marks are the best", loc="left")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, given.out, "learning_rate")


if __name__ == "__main__":
    main()
