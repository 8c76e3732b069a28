"""What a comparison found: its trials as data, and the analysis that table, pictures and page are drawn from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onepass.study.errors import StudyError
from onepass.study.optimizers import read_options
from onepass.study.plan import Candidate, Plan, Trial
from onepass.study.record import Outcome
from onepass.study.statistics import WORST, Verdict, judge, median

FORMAT = "onepass comparison 1"


@dataclass(frozen=True)
class Subject:
    """The task, as far as a reader of the results needs it; `spec` is how the command line names it."""

    spec: str
    name: str
    metric: str
    higher_is_better: bool
    optimum: float | None = None
    notes: str = ""

    def score(self, metric: float | None) -> float:
        """`metric` turned so that higher is better; a missing or undefined one is the worst possible."""
        if metric is None or math.isnan(metric):
            return WORST
        return metric if self.higher_is_better else -metric

    def metric_of(self, score: float) -> float:
        """The inverse of `score`."""
        return score if self.higher_is_better else -score


@dataclass(frozen=True)
class Finished:
    """A trial and what came of it."""

    trial: Trial
    outcome: Outcome

    @property
    def validation_metric(self) -> float | None:
        """At the end of the schedule; None if the run diverged before."""
        return None if self.outcome.diverged else self.outcome.history[-1].validation_metric

    @property
    def validation_loss(self) -> float:
        """At the end of the schedule; infinite if the run diverged before."""
        return math.inf if self.outcome.diverged else self.outcome.history[-1].validation_loss


@dataclass(frozen=True)
class Row:
    """One candidate in the ranking, in the metric's own units; infinities stand for diverged runs.

    low, high: 95 % bootstrap interval of the median. behind_low, behind_high: the corrected interval of the median
    paired difference to the leader, positive where the leader is better. edge: "lowest" or "highest" if the tuned
    learning rate is an end of the grid. seconds: median training time of a run. step_ms, step_share: medians of
    `Outcome.step_seconds`, in milliseconds, and of `Outcome.step_share`.
    """

    candidate: Candidate
    lr: float
    edge: str | None
    in_group: bool
    metrics: tuple[float, ...]
    median: float
    low: float
    high: float
    behind: float
    behind_low: float
    behind_high: float
    test_loss: float
    seconds: float
    step_ms: float
    step_share: float
    diverged: int
    tuning_diverged: int

    @property
    def label(self) -> str:
        return self.candidate.label


@dataclass(frozen=True)
class Results:
    """A finished comparison.

    command: what reproduces it. environment: as `describe_environment` gives it, with "date" and "workers".
    """

    subject: Subject
    plan: Plan
    finished: tuple[Finished, ...]
    environment: Mapping[str, Any]
    command: str

    @cached_property
    def verdict(self) -> Verdict:
        """The ranking of the final runs by the metric on the test split; the median test loss orders equal medians."""
        finals = {candidate.label: self.of(candidate, "final") for candidate in self.plan.candidates}
        scores = {
            label: [self.subject.score(each.outcome.test_metric) for each in runs] for label, runs in finals.items()
        }
        losses = {label: -_median_loss(runs) for label, runs in finals.items()}
        return judge(scores, losses)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The ranking, best first."""
        candidates = {candidate.label: candidate for candidate in self.plan.candidates}
        return tuple(
            self._row(candidates[standing.label], place) for place, standing in enumerate(self.verdict.standings)
        )

    @property
    def code(self) -> str | None:
        """The line that makes the leader for a ``model``; None if at least half of its final runs diverged."""
        best = self.rows[0]
        return best.candidate.code(best.lr, self.plan.weight_decay) if math.isfinite(best.median) else None

    def of(self, candidate: Candidate, stage: str) -> list[Finished]:
        """The candidate's trials of one stage, in the plan's order."""
        return [each for each in self.finished if each.trial.candidate == candidate and each.trial.stage == stage]

    def _row(self, candidate: Candidate, place: int) -> Row:
        standing = self.verdict.standings[place]
        finals, tuning = self.of(candidate, "final"), self.of(candidate, "tuning")
        lr, grid = finals[0].trial.lr, self.plan.grid
        ends = {grid[0]: "lowest", grid[-1]: "highest"} if len(grid) > 1 else {}
        low, high = sorted(map(self.subject.metric_of, (standing.low, standing.high)))
        return Row(
            candidate=candidate,
            lr=lr,
            edge=ends.get(lr),
            in_group=standing.in_group,
            metrics=tuple(map(self.subject.metric_of, standing.scores)),
            median=self.subject.metric_of(standing.median),
            low=low,
            high=high,
            behind=standing.behind,
            behind_low=standing.behind_low,
            behind_high=standing.behind_high,
            test_loss=_median_loss(finals),
            seconds=float(median([each.outcome.seconds for each in finals])),
            step_ms=float(median([1e3 * each.outcome.step_seconds for each in finals])),
            step_share=float(median([each.outcome.step_share for each in finals])),
            diverged=standing.diverged,
            tuning_diverged=sum(each.outcome.diverged for each in tuning),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; numbers that are not finite become null."""
        return _finite(
            {
                "format": FORMAT,
                "command": self.command,
                "environment": dict(self.environment),
                "task": asdict(self.subject),
                "plan": _plan_to_json(self.plan),
                "analysis": {
                    "verdict": verdict_sentence(self),
                    "winner": self.verdict.winner,
                    "indistinguishable": list(self.verdict.group),
                    "confidence": self.verdict.confidence,
                    "comparison_level": self.verdict.level,
                    "correction": "Bonferroni",
                    "seeds_needed": self.verdict.seeds_needed,
                    "remarks": remarks(self),
                    "ranking": [_row_to_json(row, self.plan) for row in self.rows],
                },
                "trials": [
                    {
                        "stage": each.trial.stage,
                        "optimizer": each.trial.candidate.label,
                        "lr": each.trial.lr,
                        "seed": each.trial.seed,
                        "outcome": each.outcome.to_json(),
                    }
                    for each in self.finished
                ],
            }
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Results:
        """The results that `to_json` wrote; the analysis is computed anew. StudyError for another format."""
        if data.get("format") != FORMAT:
            raise StudyError(f"these results are in the format {data.get('format')!r}; this version reads {FORMAT!r}")
        plan = _plan_from_json(data["plan"])
        candidates = {candidate.label: candidate for candidate in plan.candidates}
        finished = tuple(
            Finished(
                Trial(each["stage"], candidates[each["optimizer"]], each["lr"], each["seed"]),
                Outcome.from_json(each["outcome"]),
            )
            for each in data["trials"]
        )
        return cls(Subject(**data["task"]), plan, finished, data["environment"], data["command"])


def tuned_lr(trials: Sequence[Finished], subject: Subject) -> float:
    """The learning rate whose trials end best on validation: by mean metric, then mean loss, then the lower rate.

    One diverged trial makes its learning rate the worst possible: a setting has to hold for every seed.
    """

    def quality(lr: float) -> tuple[float, float, float]:
        runs = [each for each in trials if each.trial.lr == lr]
        metric = np.mean([subject.score(each.validation_metric) for each in runs])
        return float(metric), -float(np.mean([each.validation_loss for each in runs])), -lr

    return max({each.trial.lr for each in trials}, key=quality)


def verdict_sentence(results: Results) -> str:
    """What may be concluded, in one plain sentence."""
    verdict, rows, subject = results.verdict, results.rows, results.subject
    leader, count, seeds = rows[0], len(rows), len(results.plan.seeds)
    best = f"median test {subject.metric} {show(leader.median)}"
    if math.isinf(leader.median):
        return "No verdict: at least half the final runs of every optimizer diverged; try a lower --lr-grid."
    if not verdict.enough_seeds:
        return (
            f"No verdict yet: {leader.label} leads with {best}, but telling {count} optimizers apart takes "
            f"at least {verdict.seeds_needed} seeds, and there are {seeds}."
        )
    if verdict.winner:
        others = "the other one" if count == 2 else f"each of the other {count - 1}"
        return (
            f"{leader.label} wins on {subject.name}: {best} over {seeds} seeds, "
            f"ahead of {others} by more than chance explains."
        )
    members = [row for row in rows if row.in_group]
    spread = f"median test {subject.metric} {show(leader.median)} to {show(members[-1].median)}"
    if len(members) == count:
        return (
            f"No winner: the {count} optimizers cannot be told apart on {subject.name} ({spread} over {seeds} seeds)."
        )
    behind = "the other one is" if count - len(members) == 1 else f"the other {count - len(members)} are"
    names = listing([row.label for row in members])
    tie = f"{names} cannot be told apart ({spread} over {seeds} seeds)"
    return f"No single winner on {subject.name}: {tie}; {behind} behind."


def remarks(results: Results) -> list[str]:
    """What a reader of the ranking must also know, a sentence each."""
    edges = [f"{row.label} ({row.lr:.3g}, the {row.edge})" for row in results.rows if row.edge]
    said = []
    if edges:
        said.append(
            f"* The best learning rate of {listing(edges)} lies at the edge of the grid: "
            "a wider --lr-grid may find better."
        )
    twins: dict[tuple[float, ...], list[str]] = {}
    for row in results.rows:
        twins.setdefault((row.lr, row.test_loss, *row.metrics), []).append(row.label)
    said += [
        f"{listing(names)} made the same runs: with these settings they are one rule."
        for key, names in twins.items()
        if len(names) > 1 and all(map(math.isfinite, key))
    ]
    return said


def show(value: float) -> str:
    """A metric or loss for a reader: four decimals where they say something, "diverged" for an infinity."""
    if not math.isfinite(value):
        return "diverged"
    return f"{value:.4f}" if value == 0 or 1e-2 <= abs(value) < 1e3 else f"{value:.4g}"


def show_interval(low: float, high: float) -> str:
    """The two ends of an interval as `show` has them, "div." for one among diverged runs."""
    return "–".join(show(end) if math.isfinite(end) else "div." for end in (low, high))


def show_gap(value: float) -> str:
    """A difference of metrics for a reader, signed; infinite where one side diverged."""
    return f"{value:+.4f}" if math.isfinite(value) else "∞" if value > 0 else "−∞"


def listing(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _median_loss(runs: Iterable[Finished]) -> float:
    losses = (each.outcome.test_loss for each in runs)
    return float(median([math.inf if loss is None or math.isnan(loss) else loss for loss in losses]))


def _row_to_json(row: Row, plan: Plan) -> dict[str, Any]:
    data = {name: value for name, value in asdict(row).items() if name != "candidate"}
    return {"optimizer": row.label, **data, "code": row.candidate.code(row.lr, plan.weight_decay)}


def _plan_to_json(plan: Plan) -> dict[str, Any]:
    candidates = [
        {
            "label": candidate.label,
            "optimizer": candidate.optimizer,
            "class": candidate.class_name,
            "options": [f"{name}={value!r}" for name, value in candidate.options],
        }
        for candidate in plan.candidates
    ]
    return {**asdict(plan), "candidates": candidates}


def _plan_from_json(data: Mapping[str, Any]) -> Plan:
    sequences = {name: tuple(data[name]) for name in ("grid", "tuning_seeds", "seeds")}
    candidates = tuple(
        Candidate(each["optimizer"], each["class"], read_options(each["options"])) for each in data["candidates"]
    )
    return Plan(**{**data, **sequences, "candidates": candidates})


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
