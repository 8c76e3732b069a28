"""The pictures of a comparison, each drawn from the results alone: `PICTURES` maps a file name to its function."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from onepass.study.results import Finished, Results, Row, show
from onepass.study.statistics import median

# Paul Tol's "muted" scheme, safe for colour-blind readers, then his "vibrant" one for long lists.
COLOURS = (
    "#CC6677", "#332288", "#117733", "#0077BB", "#882255", "#44AA99", "#999933", "#AA4499", "#DDAA33",
    "#EE7733", "#88CCEE", "#BB5566", "#009988", "#666666",
)  # fmt: skip
INK, FAINT, GRID = "#222222", "#767676", "#E6E6E6"
BACKDROP = "#D2D2D2"

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": "#B0B0B0",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}
DPI = 150
WIDTH = 10.0


@dataclass(frozen=True)
class Picture:
    """A drawing and the line below it that says how to read it."""

    title: str
    caption: str
    draw: Callable[[Results], Figure]


@contextmanager
def style() -> Iterator[None]:
    """The house style for what is drawn inside; global settings are left as they were."""
    with mpl.rc_context(STYLE):
        yield


def png(picture: Picture, results: Results) -> bytes:
    """The picture as the bytes of a PNG file."""
    with style():
        buffer = io.BytesIO()
        # No date or version inside: the same results give the same bytes.
        picture.draw(results).savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()


def colours(results: Results) -> dict[str, str]:
    """A colour for each label, by its place in the plan: the same in every picture, whatever the ranking."""
    return {each.label: COLOURS[place % len(COLOURS)] for place, each in enumerate(results.plan.candidates)}


def draw_ranking(results: Results) -> Figure:
    """Final runs on the test split: a dot for each seed, the median and its interval, best on top."""
    rows, subject, palette = results.rows, results.subject, colours(results)
    figure = Figure(figsize=(WIDTH, 1.3 + 0.44 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    limits = _window(
        [metric for row in rows for metric in row.metrics], [row.median for row in rows], subject.higher_is_better
    )
    worst, best = limits if subject.higher_is_better else limits[::-1]
    margin = 0.025 * (worst - best)
    members = sum(row.in_group for row in rows)
    for place, row in enumerate(rows):
        colour = palette[row.label]
        if row.in_group and 1 < members < len(rows):
            axes.axhspan(place - 0.5, place + 0.5, color="#F4F1E8", linewidth=0, zorder=0)
        inside = np.array([metric for metric in row.metrics if limits[0] <= metric <= limits[1]])
        axes.scatter(inside, place + _spread(inside, limits), s=22, color=colour, alpha=0.45, linewidth=0, zorder=3)
        axes.plot(np.clip([row.low, row.high], *limits), [place, place], color=colour, linewidth=2.2, zorder=4)
        if limits[0] <= row.median <= limits[1]:
            axes.plot([row.median] * 2, [place - 0.27, place + 0.27], color=colour, linewidth=3.2, zorder=5)
        _mark_outside(axes, place, row, limits, worst)
        remark = f"{show(row.median)}  at lr {row.lr:.3g}"
        axes.annotate(remark, (1.015, place), xycoords=("axes fraction", "data"), va="center", color=INK)
    axes.set(
        xlim=(worst + margin, best), ylim=(len(rows) - 0.5, -0.5), xlabel=f"test {subject.metric} {_better(results)}"
    )
    axes.set_yticks(range(len(rows)), [row.label for row in rows], color=INK)
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(7))
    axes.spines["left"].set_visible(False)
    axes.annotate("median", (1.015, 1.0), xycoords="axes fraction", va="bottom", color=FAINT)
    return figure


def _mark_outside(axes: Axes, place: int, row: Row, limits: tuple[float, float], worst: float) -> None:
    """Counts, at the worse edge, the runs that the window leaves out."""
    below = sum(math.isfinite(metric) and not limits[0] <= metric <= limits[1] for metric in row.metrics)
    remarks = [f"{row.diverged} diverged"] * (row.diverged > 0) + [f"{below} out of view"] * (below > 0)
    if remarks:
        axes.plot([worst], [place], "x", color=INK, markersize=6, clip_on=False, zorder=6)
        axes.annotate(
            ", ".join(remarks), (worst, place), xytext=(-3, 7), textcoords="offset points", va="bottom",
            color=INK, fontsize=8.5, zorder=6,
        )  # fmt: skip


def _spread(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Offsets that keep dots of nearly equal value apart, in data units of a row's height."""
    offsets = np.zeros(len(values))
    bins = np.round((values - limits[0]) / (limits[1] - limits[0]) * 110)
    for each in np.unique(bins):
        together = np.flatnonzero(bins == each)
        step = min(0.13, 0.6 / max(len(together), 1))
        offsets[together] = (np.arange(len(together)) - (len(together) - 1) / 2) * step
    return offsets


def draw_steps(results: Results) -> Figure:
    """Validation metric against optimizer steps."""
    return _draw_curves(results, "optimizer steps", lambda epoch: epoch.step)


def draw_seconds(results: Results) -> Figure:
    """Validation metric against seconds of training."""
    return _draw_curves(results, "seconds of training", lambda epoch: epoch.seconds)


def _draw_curves(results: Results, unit: str, position: Callable[[Any], float]) -> Figure:
    curves = {row.label: _curve(results.of(row.candidate, "final"), position) for row in results.rows}
    ends = [curve.middle[-1] for curve in curves.values() if len(curve.middle)]
    everything = np.concatenate([np.concatenate([curve.low, curve.high]) for curve in curves.values()])
    limits = _window(everything, ends, results.subject.higher_is_better, reach=4.0)
    panels = _Panels(results, limits)
    for row, axes, colour in panels:
        for label, other in curves.items():
            if label != row.label:
                axes.plot(other.x, other.middle, color=BACKDROP, linewidth=0.9, zorder=1)
        curve = curves[row.label]
        axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.22, linewidth=0, zorder=2)
        axes.plot(curve.x, curve.middle, color=colour, linewidth=2, zorder=3)
        if row.diverged:
            panels.remark(axes, f"✕ {row.diverged} of {len(row.metrics)} diverged")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    return panels.finish(unit, f"validation {results.subject.metric}")


@dataclass(frozen=True)
class _Curve:
    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _curve(runs: list[Finished], position: Callable[[Any], float]) -> _Curve:
    """Median and range over the runs still going, epoch by epoch, as far as any went: nowhere, perhaps."""
    longest = max(len(run.outcome.history) for run in runs)
    at = [[run.outcome.history[epoch] for run in runs if len(run.outcome.history) > epoch] for epoch in range(longest)]
    values = [np.array([epoch.validation_metric for epoch in epochs]) for epochs in at]
    return _Curve(
        x=np.array([float(median([position(epoch) for epoch in epochs])) for epochs in at]),
        middle=np.array([float(median(each)) for each in values]),
        low=np.array([each.min() for each in values]),
        high=np.array([each.max() for each in values]),
    )


def draw_sensitivity(results: Results) -> Figure:
    """Validation metric at the end of tuning against the learning rate; the chosen one is ringed."""
    lines = {row.label: _sensitivity(results, row) for row in results.rows}
    metrics = [metric for line in lines.values() for _, metric in line if math.isfinite(metric)]
    chosen = [metric for row in results.rows for lr, metric in lines[row.label] if lr == row.lr]
    limits = _window(metrics, chosen, results.subject.higher_is_better, reach=6.0)
    worst = limits[0] if results.subject.higher_is_better else limits[1]
    panels = _Panels(results, limits)
    for row, axes, colour in panels:
        for label, line in lines.items():
            if label != row.label:
                axes.plot(*_unzip(line), color=BACKDROP, linewidth=0.9, zorder=1)
        rates, ends = _unzip(lines[row.label])
        axes.plot(rates, ends, "o-", color=colour, linewidth=2, markersize=4.5, zorder=3)
        best = ends[rates.index(row.lr)]
        axes.plot(
            row.lr,
            best,
            "o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=colour,
            markeredgewidth=1.6,
            zorder=4,
        )
        failed = [rate for rate, end in zip(rates, ends, strict=True) if not math.isfinite(end)]
        axes.plot(failed, [worst] * len(failed), "x", color=INK, markersize=6, clip_on=False, in_layout=False, zorder=5)
        axes.set_xscale("log")
        axes.set_xlim(results.plan.grid[0] / 1.6, results.plan.grid[-1] * 1.6)
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_minor_formatter(NullFormatter())
        edge = f", {row.edge} tried" if row.edge else ""
        panels.remark(axes, f"best {row.lr:.3g}{edge}", at_right=False)
    return panels.finish("learning rate", f"validation {results.subject.metric} at the end")


def _sensitivity(results: Results, row: Row) -> list[tuple[float, float]]:
    """(learning rate, mean metric over the tuning seeds), infinite where a trial diverged."""
    trials = results.of(row.candidate, "tuning")
    return [
        (
            lr,
            float(
                np.mean(
                    [
                        results.subject.metric_of(results.subject.score(each.validation_metric))
                        for each in trials
                        if each.trial.lr == lr
                    ]
                )
            ),
        )
        for lr in results.plan.grid
    ]


def _unzip(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [first for first, _ in pairs], [second for _, second in pairs]


def draw_step_time(results: Results) -> Figure:
    """Milliseconds in one optimizer step, with its share of the training time."""
    rows = sorted(results.rows, key=lambda row: row.step_ms)
    palette = colours(results)
    figure = Figure(figsize=(WIDTH, 1.1 + 0.36 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(rows))
    axes.barh(places, [row.step_ms for row in rows], height=0.62, color=[palette[row.label] for row in rows], zorder=2)
    for place, row in enumerate(rows):
        remark = f"{row.step_ms:.3g} ms, {row.step_share:.0%} of training"
        axes.annotate(remark, (row.step_ms, place), xytext=(6, 0), textcoords="offset points", va="center", color=INK)
    axes.set(xlim=(0, 1.35 * max(row.step_ms for row in rows)), ylim=(len(rows) - 0.4, -0.6))
    axes.set_xlabel("milliseconds in one optimizer step (shorter is better)")
    axes.set_yticks(places, [row.label for row in rows], color=INK)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    return figure


class _Panels:
    """One small panel for each candidate, in the order of the ranking, all on one scale."""

    def __init__(self, results: Results, limits: tuple[float, float]) -> None:
        self.results = results
        rows = len(results.rows)
        self.columns = min(5 if rows > 8 else 4, rows)
        self.lines = math.ceil(rows / self.columns)
        self.figure = Figure(figsize=(WIDTH, 1.0 + 1.9 * self.lines), layout="constrained")
        self.grid = self.figure.subplots(self.lines, self.columns, sharex=True, sharey=True, squeeze=False)
        self.grid[0, 0].set_ylim(limits)

    def __iter__(self) -> Iterator[tuple[Row, Axes, str]]:
        palette = colours(self.results)
        for place, axes in enumerate(self.grid.flat):
            if place >= len(self.results.rows):
                axes.set_visible(False)
                continue
            row = self.results.rows[place]
            title = textwrap.fill(f"{place + 1}. {row.label}", 18)
            axes.set_title(title, loc="left", fontsize=10, color=palette[row.label], weight="bold")
            yield row, axes, palette[row.label]
            # The panels of a last, shorter line hide those above them, whose tick labels must then stand there.
            below = place + self.columns
            axes.tick_params(labelbottom=below >= len(self.results.rows))

    def remark(self, axes: Axes, text: str, at_right: bool = True) -> None:
        """A short note in the worse corner of a panel, where curves are not."""
        worse = 0.04 if self.results.subject.higher_is_better else 0.96
        axes.annotate(
            text, (0.97 if at_right else 0.5, worse), xycoords="axes fraction", fontsize=8.5, color=INK, zorder=6,
            ha="right" if at_right else "center", va="bottom" if worse < 0.5 else "top",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
        )  # fmt: skip

    def finish(self, x: str, y: str) -> Figure:
        """Names the axes once for all panels."""
        self.figure.supxlabel(x, fontsize=10)
        # One line of panels is too low for one line of text.
        separator = "\n" if self.lines == 1 else " "
        self.figure.supylabel(y + separator + _better(self.results), fontsize=10)
        return self.figure


def _better(results: Results) -> str:
    return "(higher is better)" if results.subject.higher_is_better else "(lower is better)"


def _window(values: Any, around: Any, higher_is_better: bool, reach: float = 2.5) -> tuple[float, float]:
    """Axis limits that show `around` well: values that are worse by more than `reach` times its spread are left out."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    centre = np.asarray(around, dtype=float)
    centre = centre[np.isfinite(centre)]
    if not len(finite) or not len(centre):
        return 0.0, 1.0
    low, middle, high = np.quantile(centre, [0.1, 0.5, 0.9])
    scale = max(high - low, 1e-3 * abs(middle), 1e-9)
    low, high = finite.min(), finite.max()
    if higher_is_better:
        low = max(low, middle - reach * scale)
    else:
        high = min(high, middle + reach * scale)
    margin = max(0.05 * (high - low), 0.05 * scale)
    return float(low - margin), float(high + margin)


PICTURES: dict[str, Picture] = {
    "ranking.png": Picture(
        "Ranking on the test split",
        "Each dot is one seed, the tick is the median, the bar its 95 % bootstrap interval; the shaded rows cannot be "
        "told apart from the leader. Whether two differ is judged on paired differences, not on whether bars overlap.",
        draw_ranking,
    ),
    "learning-steps.png": Picture(
        "Learning curves against steps",
        "The coloured line is the median over the final seeds, the band their full range, the grey lines the other "
        "optimizers.",
        draw_steps,
    ),
    "learning-seconds.png": Picture(
        "Learning curves against seconds",
        "The same runs against training time, validation not counted: what a slower optimizer step costs shows here.",
        draw_seconds,
    ),
    "learning-rates.png": Picture(
        "Learning-rate sensitivity",
        "Where the tuning stage ended on validation, averaged over its seeds; the ring is the learning rate chosen, a "
        "cross one that diverged, grey the other optimizers. A broad top forgives a bad guess.",
        draw_sensitivity,
    ),
    "step-time.png": Picture(
        "Time in the optimizer's step",
        "Median over the final runs, without the compiling of kernels, measured while the other workers ran: compare "
        "the bars with one another.",
        draw_step_time,
    ),
}
