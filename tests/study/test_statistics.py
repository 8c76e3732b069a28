"""Medians, intervals and the verdict: what they say of samples whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onepass.study.statistics import WORST, judge, median, median_interval, paired_differences, seeds_needed

SCORES = st.lists(st.floats(-1e6, 1e6) | st.just(WORST), min_size=2, max_size=15)


@given(SCORES)
def test_the_median_of_finite_scores_is_numpys(scores):
    finite = [score for score in scores if math.isfinite(score)] or [0.0]
    assert median(finite) == pytest.approx(np.median(finite))


def test_the_median_bears_infinities():
    assert median([1.0, 2.0, WORST]) == 1.0
    assert median([1.0, WORST]) == WORST
    assert median([WORST, WORST, 3.0]) == WORST
    assert median([WORST, math.inf]) == 0


@given(SCORES)
def test_an_interval_lies_within_the_sample_and_holds_its_median(scores):
    low, high = median_interval(scores)
    assert min(scores) <= low <= median(scores) <= high <= max(scores)


def test_a_wider_level_gives_a_wider_interval():
    scores = list(np.random.default_rng(0).normal(size=12))
    (low, high), (lower, higher) = median_interval(scores, 0.8), median_interval(scores, 0.99)
    assert lower < low < high < higher


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    random = np.random.default_rng(1)
    intervals = [median_interval(list(random.normal(size=15)), 0.9) for _ in range(300)]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.84 <= covered <= 0.99


def test_differences_of_diverged_runs():
    assert paired_differences([1.0, WORST, 2.0, WORST], [0.5, WORST, WORST, 1.0]) == [0.5, 0.0, math.inf, WORST]


@pytest.mark.parametrize(("candidates", "seeds"), [(2, 6), (3, 7), (10, 9), (13, 9)])
def test_seeds_needed_is_where_the_sign_test_can_first_succeed(candidates, seeds):
    corrected = 0.05 / (candidates - 1)
    assert 2.0 ** (1 - seeds) <= corrected < 2.0 ** (2 - seeds)
    assert seeds_needed(candidates) == seeds


def test_a_clear_winner_is_named():
    luck = np.random.default_rng(2).normal(0, 0.01, 10)
    verdict = judge({"slow": 0.5 + luck, "best": 0.9 + luck, "middle": 0.7 - luck})
    assert verdict.winner == "best"
    assert [standing.label for standing in verdict.standings] == ["best", "middle", "slow"]
    assert verdict.level == pytest.approx(0.975)


def test_equals_are_a_group_and_nobody_wins():
    scores = [0.9, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98]
    verdict = judge({"a": scores, "b": scores, "c": [score - 0.5 for score in scores]})
    assert verdict.winner is None
    assert verdict.group == ("a", "b")


def test_a_difference_below_the_resolution_of_the_metric_is_none():
    scores = [0.9 + 0.001 * seed for seed in range(10)]
    assert judge({"a": scores, "b": [score - 1e-9 for score in scores]}).group == ("a", "b")
    assert judge({"a": scores, "b": [score - 1e-4 for score in scores]}).group == ("a",)


def test_pairing_reveals_a_difference_smaller_than_the_luck_of_the_seeds():
    luck = np.random.default_rng(3).normal(0, 1, 10)
    assert judge({"a": luck, "b": luck - 0.01}).winner == "a"
    assert judge({"a": luck, "b": luck[::-1] - 0.01}).winner is None


def test_too_few_seeds_separate_nobody_however_far_apart():
    verdict = judge({"a": [1.0] * 5, "b": [0.0] * 5})
    assert not verdict.enough_seeds
    assert verdict.winner is None
    assert judge({"a": [1.0] * 6, "b": [0.0] * 6}).winner == "a"


def test_a_diverged_run_ranks_below_every_number():
    verdict = judge({"wild": [0.99] * 4 + [WORST] * 6, "tame": [0.1] * 10, "rare": [0.95] * 9 + [WORST]})
    assert [standing.label for standing in verdict.standings] == ["rare", "tame", "wild"]
    assert [standing.diverged for standing in verdict.standings] == [1, 0, 6]
    wild = verdict.standings[2]
    assert wild.median == WORST
    assert wild.high == 0.99


def test_a_majority_of_diverged_runs_is_told_apart_only_as_far_as_seeds_allow():
    steady = [0.9] * 10
    assert judge({"steady": steady, "broken": [WORST] * 10}).winner == "steady"
    assert judge({"steady": steady, "lucky": [0.9] * 7 + [WORST] * 3}).winner is None


def test_the_tie_break_orders_equal_medians():
    scores = {"first": [0.9] * 10, "second": [0.9] * 10}
    assert judge(scores, {"first": -2.0, "second": -1.0}).leader.label == "second"
    assert judge(scores).leader.label == "first"


def test_the_truly_best_is_left_out_no_more_often_than_promised():
    random = np.random.default_rng(4)
    wrong = 0
    for _ in range(60):
        luck = random.normal(0, 0.004, 10)
        scores = {f"{place}": luck + random.normal(0, 0.005, 10) for place in range(8)}
        scores["best"] = 1e-4 + luck + random.normal(0, 0.005, 10)
        wrong += "best" not in judge(scores).group
    assert wrong <= 6
