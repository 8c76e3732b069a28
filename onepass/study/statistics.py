"""Who is ahead, and by more than chance explains: medians, bootstrap intervals and the verdict on paired seeds.

Scores are oriented so that higher is better; minus infinity is the score of a run that diverged, worse than any number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
RESAMPLING_SEED = 20_240_229

WORST = -math.inf

# Metrics are float32: scores that differ by less than this share of the largest one are the same score.
RESOLUTION = 1e-6


def median(values: ArrayLike) -> NDArray[np.float64]:
    """Median over the last axis, with infinities allowed.

    The two middle values of an even count are averaged; opposed infinities average to 0, which for a difference of
    scores reads "no difference shown".
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    count = ordered.shape[-1]
    below, above = ordered[..., (count - 1) // 2], ordered[..., count // 2]
    with np.errstate(invalid="ignore"):
        return np.nan_to_num((below + above) / 2, nan=0.0, posinf=np.inf, neginf=-np.inf)


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Percentile-bootstrap interval of the median of `values`; `level` in (0, 1).

    The resamples come from a fixed seed and depend on ``len(values)`` alone, so paired samples are resampled alike and
    the same scores always give the same interval.
    """
    sample = np.asarray(values, dtype=np.float64)
    picks = np.random.default_rng(RESAMPLING_SEED).integers(0, len(sample), (RESAMPLES, len(sample)))
    medians = np.sort(median(sample[picks]))
    tail = (1 - level) / 2
    # The ends are resampled medians themselves: interpolating between a number and an infinity has no answer.
    return float(medians[math.floor(tail * RESAMPLES)]), float(medians[math.ceil((1 - tail) * RESAMPLES) - 1])


def paired_differences(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """``ours - theirs`` seed by seed; two diverged runs differ by 0, one diverged run by an infinity."""
    return [0.0 if a == b else a - b for a, b in zip(ours, theirs, strict=True)]


def seeds_needed(candidates: int, confidence: float = 0.95) -> int:
    """Fewest paired seeds that can tell `candidates` optimizers apart at `confidence`, Bonferroni-corrected.

    If neither of two optimizers is better, all n differences have one sign with probability 2^(1-n); no interval of a
    median from n seeds can be surer than that, whatever a bootstrap prints.
    """
    comparisons = max(candidates - 1, 1)
    return math.ceil(1 + math.log2(comparisons / (1 - confidence)))


@dataclass(frozen=True)
class Standing:
    """One candidate's place.

    low, high: its own interval at the verdict's confidence.
    behind, behind_low, behind_high: median paired difference to the leader (positive: the leader is better) and its
    interval at the corrected level.
    """

    label: str
    scores: tuple[float, ...]
    median: float
    low: float
    high: float
    behind: float
    behind_low: float
    behind_high: float
    in_group: bool

    @property
    def diverged(self) -> int:
        """How many of its runs diverged."""
        return sum(score == WORST for score in self.scores)


@dataclass(frozen=True)
class Verdict:
    """Standings, best first, and what may be concluded from them.

    confidence: of the whole statement, e.g. 0.95. level: of each comparison with the leader, after the correction.
    seeds_needed: fewest seeds with which a difference could have been shown at all.
    """

    standings: tuple[Standing, ...]
    confidence: float
    level: float
    seeds_needed: int

    @property
    def leader(self) -> Standing:
        return self.standings[0]

    @property
    def group(self) -> tuple[str, ...]:
        """The labels that cannot be told apart from the leader, the leader first."""
        return tuple(standing.label for standing in self.standings if standing.in_group)

    @property
    def winner(self) -> str | None:
        """The leader's label if every other candidate is behind it by more than chance explains."""
        return self.leader.label if len(self.group) == 1 else None

    @property
    def enough_seeds(self) -> bool:
        return len(self.leader.scores) >= self.seeds_needed


def judge(
    scores: Mapping[str, Sequence[float]],
    tie_break: Mapping[str, float] | None = None,
    confidence: float = 0.95,
) -> Verdict:
    """Rank candidates by median score and find those that cannot be told apart from the leader.

    scores: label -> one score per seed, in the same order of seeds for every label.
    tie_break: label -> a number, higher is better, that orders equal medians; the order given decides after that.

    Each candidate is compared with the leader by the bootstrap interval of the median paired difference, widened to
    ``1 - (1 - confidence) / (candidates - 1)`` (Bonferroni). It is behind when its interval lies above 0. Because the
    correction counts every comparison, the group holds the truly best candidate with the confidence stated, although
    the leader was picked from the same scores (Hsu's "multiple comparisons with the best"): leaving it out takes a
    false result in one of the ``candidates - 1`` comparisons with it.
    """
    tie_break = tie_break or {}
    ranked = sorted(scores, key=lambda label: (float(median(scores[label])), tie_break.get(label, 0.0)), reverse=True)
    leader = scores[ranked[0]]
    level = 1 - (1 - confidence) / max(len(ranked) - 1, 1)
    needed = seeds_needed(len(ranked), confidence)
    noise = RESOLUTION * max(
        (abs(score) for own in scores.values() for score in own if math.isfinite(score)), default=0.0
    )
    can_separate = len(leader) >= needed

    def stand(label: str) -> Standing:
        own = scores[label]
        low, high = median_interval(own, confidence)
        differences = paired_differences(leader, own)
        behind_low, behind_high = median_interval(differences, level)
        return Standing(
            label=label,
            scores=tuple(own),
            median=float(median(own)),
            low=low,
            high=high,
            behind=float(median(differences)),
            behind_low=behind_low,
            behind_high=behind_high,
            in_group=not (can_separate and behind_low > noise),
        )

    return Verdict(tuple(stand(label) for label in ranked), confidence, level, needed)
