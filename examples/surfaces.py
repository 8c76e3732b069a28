"""Where every optimizer goes on Rosenbrock's valley, Beale's function and a saddle: one picture for each surface.

In the valleys each runs at the learning rate, of a grid, that ends lowest; the figure above it is that end's height. On
the saddle all run at one rate, from almost on the ridge, where the slope that leads down is a millionth of the other.
RAdam and Ranger begin with five plain steps along the gradient, and here these bear only a small rate.
"""

import numpy as np
from picture import INK, RED, options, plt, save

from onepass.functional import init, list_rules, update

SURFACES = {
    # name: title; height; start; window as left, right, bottom, top; lowest point
    "rosenbrock": ("Rosenbrock's valley, (1 − x)² + 100 (y − x²)²", lambda x, y: (1 - x) ** 2 + 100 * (y - x * x) ** 2,
                   (-1.2, 1.0), (-1.8, 1.8, -0.8, 2.4), (1.0, 1.0)),
    "beale": ("Beale's function",
              lambda x, y: sum((c - x * (1 - y**n)) ** 2 for n, c in ((1, 1.5), (2, 2.25), (3, 2.625))),
              (1.0, 1.5), (-1, 4, -1.5, 2), (3.0, 0.5)),
    "saddle": ("Down the saddle x² − y², from almost on its ridge", lambda x, y: x * x - y * y,
               (1.5, 1e-6), (-2, 2, -1, 3), None),
}  # fmt: skip


def gradient(height, x, y, h=1e-20):
    """By an imaginary step, which cancels nothing and so is exact to rounding."""
    return np.array([height(x + 1j * h, y).imag, height(x, y + 1j * h).imag]) / h


def path(height, start, window, rule, lr, steps):
    """The points on the way, at the most until the first outside the window."""
    low, high = np.array(window).reshape(2, 2).T
    p = np.array(start)
    state = init(p, rule, lr=lr)
    points = [p]
    while len(points) <= steps and np.all((low <= p) & (p <= high)):
        p, state = update(p, gradient(height, *p), state)
        points.append(p)
    return np.array(points)


def best_path(height, start, window, rule, rates, steps):
    """The rate, and the path, that ends lowest of those that stay in the window."""
    paths = {lr: path(height, start, window, rule, lr, steps) for lr in rates}
    lr = min(paths, key=lambda lr: height(*paths[lr][-1]) if len(paths[lr]) > steps else np.inf)
    return lr, paths[lr]


def main():
    given = options(__doc__)
    steps, rates = (150, (0.001, 0.1, 1.0)) if given.quick else (400, np.logspace(-3.5, 1, 10))
    for name, (title, height, start, window, lowest) in SURFACES.items():
        x, y = np.meshgrid(*(np.linspace(*side, 60 if given.quick else 160) for side in (window[:2], window[2:])))
        heights = height(x, y)
        shades = np.log10(heights + 0.01) if lowest else heights
        figure, axes = plt.subplots(3, 5, figsize=(12, 8.2), sharex=True, sharey=True)
        for rule, ax in zip(list_rules(), axes.flat, strict=True):
            if lowest:
                lr, points = best_path(height, start, window, rule, rates, steps)
                note = f"rate {lr:.2g}, ends at {height(*points[-1]):.1g}"
                ax.plot(*lowest, "*", color=INK, markersize=9, zorder=4)
            else:
                points = path(height, start, window, rule, 0.02, 400)
                out = int(np.argmax(points[:, 1] > window[3]))
                note = f"leaves in {out} steps" if out else "stays for 400 steps"
            print(f"{name}: {rule}, {note}")
            ax.contourf(x, y, shades, 12, cmap="Blues", alpha=0.8)
            ax.plot(*points.T, color=RED, linewidth=1.3)
            ax.plot(*start, "o", color=INK, markersize=5)
            ax.set(xlim=window[:2], ylim=window[2:], title=f"{rule}\n{note}")
            ax.grid(False)
        how = f"{steps} steps at the best rate of each" if lowest else "all at the rate 0.02"
        figure.suptitle(f"{title}: {how}")
        save(figure, given.out, name)


if __name__ == "__main__":
    main()
