"""The README's table and picture, from results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import Result, environment

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- benchmark table: begin -->", "<!-- benchmark table: end -->"


def render(results: Sequence[Result]) -> None:
    """Put the table between the README's markers, and the plot into docs/benchmark.png."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")
    plot(results, ROOT / "docs" / "benchmark.png")


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table, with the machine and the date below it."""
    lines = ["| measure | onepass | against | ratio (quartiles) | must reach |", "|---|---:|---|---:|---|"]
    for r in results:
        against = f"{r.against}, {_number(r.theirs)} {r.unit}" if r.theirs is not None else ""
        ratio = f"{r.ratio:.2f} ({r.low:.2f}-{r.high:.2f})" if r.ratio is not None else ""
        mark = {True: " ✓", False: " **missed**", None: ""}[r.reached]
        target = "" if r.target is None else f"≤ {r.target:g}{mark}"
        lines.append(f"| {r.measure} | {_number(r.ours)} {r.unit} | {against} | {ratio} | {target} |")
    e = environment()
    lines += [
        "",
        f"{e['cpu']}, {e['cores']} cores, {e['threads']} threads, {e['system']}; Python {e['python']}, "
        f"torch {e['torch']}, Numba {e['numba']}; {e['date']}, commit {e['commit']}, `make bench`. "
        "Medians of interleaved rounds in one process.",
    ]
    return "\n".join(lines)


def _number(x: float) -> str:
    return f"{x:.3g}" if x < 100 else f"{x:.0f}"


def plot(results: Sequence[Result], where: Path) -> None:
    """How many times faster than the fastest torch form each optimizer's step is."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [r for r in results if r.against.startswith(("torch", "pytorch_optimizer", "optimi")) and r.ratio]
    if not shown:
        return
    shown.sort(key=lambda r: r.ratio or 0, reverse=True)
    figure, axes = plt.subplots(figsize=(9, 0.36 * len(shown) + 1.2), layout="constrained")
    speed = [1 / r.ratio for r in shown if r.ratio]
    colours = ["#0072b2" if s >= 1 else "#d55e00" for s in speed]
    axes.barh([f"{r.measure}  vs {r.against}" for r in shown], speed, color=colours, height=0.7)
    for i, s in enumerate(speed):
        axes.text(s, i, f" {s:.1f}×", va="center", fontsize=9)
    axes.axvline(1, color="#444444", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("times faster than the other (logarithmic)")
    axes.set_xlim(0.7, 1.5 * max(speed))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}×")
    axes.tick_params(labelsize=8.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    where.parent.mkdir(exist_ok=True)
    figure.savefig(where, dpi=150)
    plt.close(figure)
