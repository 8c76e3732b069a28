"""How the examples' pictures look, and the options that all of these scripts take."""

import argparse
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

mpl.use("agg")

# Paul Tol's "bright" scheme, which colour-blind readers can tell apart; black and grey for what is to compare with.
BLUE, RED, GREEN, YELLOW, CYAN, PURPLE, GREY = "#4477AA EE6677 228833 CCBB44 66CCEE AA3377 888888".replace(
    " ", " #"
).split()
INK = "#222222"
MARKERS = "osD^v*P"

plt.rcParams.update({
    "font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#B0B0B0",
    "axes.titlesize": 10.5, "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": "#E6E6E6", "xtick.color": "#555555",
    "ytick.color": "#555555", "legend.frameon": False, "figure.titlesize": 13, "figure.titleweight": "bold",
    "figure.constrained_layout.use": True, "savefig.dpi": 150,
})  # fmt: skip


def options(description: str, add=lambda parser: None) -> argparse.Namespace:
    """The command line's options: ``out``, the pictures' folder; ``quick``, for fewer runs; and what ``add`` adds."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/examples"), help="folder for the picture")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    add(parser)
    return parser.parse_args()


def save(figure: "plt.Figure", out: Path, name: str) -> None:
    """Write the picture and say where it is."""
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{name}.png")
    print(f"picture: {out / f'{name}.png'}")
