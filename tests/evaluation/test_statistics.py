"""Intervals over groups and seeds: limits that are known exactly, and how often they miss on made-up data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from retemper.evaluation import statistics
from retemper.evaluation.statistics import Estimate, Scatter


def test_mean_difference_of_equal_groups_is_students_t() -> None:
    """Of one structure a group, the jackknife of a mean is Student's interval of the differences."""
    differences = np.random.default_rng(0).normal(3.0, 2.0, 9)
    found = statistics.mean_difference([str(k) for k in range(9)], differences).interval(0.975)
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.groups == 9


def test_frames_of_a_group_count_once() -> None:
    """Each frame copied tenfold within its group: nothing is known better than before."""
    random = np.random.default_rng(1)
    ours, theirs = random.gamma(3.0, 1.0, 8), random.gamma(3.0, 1.1, 8)
    names = [f"trajectory {k}" for k in range(8)]

    def compared(copies: int) -> statistics.Estimate:
        columns = np.repeat(np.column_stack([ours, theirs]), copies, axis=0)
        sums = statistics.group_sums(list(np.repeat(names, copies)), columns)
        return statistics.log_ratio(sums[:, :1], sums[:, 1:], 0.5)

    once, tenfold = compared(1), compared(10)
    assert (tenfold.value, tenfold.error, tenfold.freedom) == pytest.approx((once.value, once.error, once.freedom))


def test_log_ratio_has_the_delta_methods_error() -> None:
    """log of a ratio of means, many groups: variance of (a / mean a - b / mean b) / 2 over n."""
    random = np.random.default_rng(0)
    a, b = random.gamma(4.0, 1.0, 4000), random.gamma(4.0, 1.2, 4000)
    found = statistics.log_ratio(a[:, None], b[:, None], 0.5)
    assert found.value == pytest.approx(0.5 * math.log(a.mean() / b.mean()))
    assert found.error == pytest.approx(np.std((a / a.mean() - b / b.mean()) / 2) / math.sqrt(4000), rel=0.01)


def test_one_group_that_makes_the_error_is_no_six() -> None:
    even, odd = np.ones((6, 1)), np.array([[1000.0], [1.0], [1.0], [1.0], [1.0], [1.0]])
    assert statistics.log_ratio(even, even * 1.1, 0.5).freedom == pytest.approx(5.0)
    assert statistics.log_ratio(odd, odd * 1.1, 0.5).freedom == 2.0
    assert statistics.log_ratio(odd[:2], odd[:2] * 1.1, 0.5).freedom == 1.0


def test_a_weighted_sum_has_welchs_freedom() -> None:
    """Difference of two means of unequal spread: Welch's interval."""
    random = np.random.default_rng(2)
    a, b = random.normal(0.0, 1.0, 5), random.normal(0.0, 4.0, 9)
    one, other = (statistics.mean_difference([str(k) for k in range(len(x))], x) for x in (a, b))
    found = statistics.weighted_sum([(1.0, one), (-1.0, other)])
    expected = stats.ttest_ind(a, b, equal_var=False)
    bounds = expected.confidence_interval(0.95)
    assert found.freedom == pytest.approx(expected.df) and found.groups == 14
    assert (found.interval(0.975).low, found.interval(0.975).high) == pytest.approx((bounds.low, bounds.high))


def test_a_single_group_says_nothing() -> None:
    found = statistics.log_ratio(np.ones((1, 1)), np.full((1, 1), 2.0), 0.5).interval(0.975, statistics.exp)
    assert (found.value, found.low, found.high, found.groups) == (pytest.approx(math.sqrt(0.5)), 0.0, math.inf, 1)


def test_intervals_of_an_rmse_are_the_analytic_ones_for_normal_errors() -> None:
    """n RMSE^2 / sigma^2 is chi squared with n degrees of freedom."""
    errors = np.random.default_rng(1).normal(0.0, 25.0, 2000)
    found = statistics.log_error(np.ones(2000), (errors**2)[:, None], 0.5).interval(0.95, statistics.exp)
    low, high = np.sqrt(stats.chi2.ppf([0.05, 0.95], 2000) / 2000)
    assert (found.high - found.low) / found.value == pytest.approx(high - low, rel=0.08)


def misses(groups: int, frames: int, correlation: float, *, heavy: bool, trials: int, confidence: float) -> int:
    """Of `trials` comparisons of equally good models, how many show one better."""
    random = np.random.default_rng(20261125)

    def noise(*shape: int) -> np.ndarray:
        return random.standard_t(2.5, shape) if heavy else random.normal(size=shape)

    wrong = 0
    for _ in range(trials):
        hard = random.normal(0.0, 0.35, (groups, 1, 1)) + random.normal(0.0, 0.35, (groups, frames, 1))
        own = math.sqrt(correlation) * noise(groups, 1, 2) + math.sqrt(1 - correlation) * noise(groups, frames, 2)
        sums = np.exp(2 * np.clip(hard + 0.15 * own, -20, 20)).sum(axis=1)
        found = statistics.log_ratio(sums[:, :1], sums[:, 1:], 0.5)
        wrong += found.value + found.reach(confidence) < 0
    return wrong


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize(("groups", "frames"), [(6, 10), (12, 10)])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8])
def test_grouped_frames_mislead_no_more_often_than_said(
    groups: int, frames: int, correlation: float, heavy: bool
) -> None:
    """One-sided 5 %; over single frames, at a correlation of 0.8, it would be 23 to 27 %."""
    wrong = misses(groups, frames, correlation, heavy=heavy, trials=1000, confidence=0.95)
    assert stats.binomtest(wrong, 1000, 0.055, alternative="greater").pvalue > 0.01


# ------------------------------------------------------------------ seeds


def deviation(scatter: Scatter, name: str, seeds: int) -> float:
    """Median of what is known of a recipe's standard deviation over seeds."""
    variances, chances = scatter.variances(name)
    below = chances.cumsum()
    return float(np.sqrt(seeds * np.interp(0.5, below / below[-1], variances)))


def test_many_seeds_give_their_own_standard_deviation() -> None:
    random = np.random.default_rng(2)
    scatter = Scatter({name: random.normal(0.0, s, 300) for name, s in (("naive", 0.002), ("scratch", 0.07))})
    assert deviation(scatter, "naive", 300) == pytest.approx(0.002, rel=0.1)
    assert deviation(scatter, "scratch", 300) == pytest.approx(0.07, rel=0.1)
    assert scatter.freedom == 598


def test_recipes_alike_speak_for_each_other() -> None:
    """Two seeds of one recipe: its own Student's t reaches 12.7 standard deviations; nine recipes alike far less."""
    random = np.random.default_rng(3)
    known = Estimate(0.0, 0.0, 50.0, 51)
    reach = [
        statistics.with_seeds(known, Scatter({f"s{k}": random.normal(0.0, 0.03, 2) for k in range(9)}), ["s0"], 0.975)
        for _ in range(10)
    ]
    normal = 1.96 * 0.03 / math.sqrt(2)
    assert normal < np.mean([found.high for found in reach]) < 3 * normal


def test_a_recipe_unlike_the_others_is_not_taken_as_alike() -> None:
    """Eight quiet recipes and one with thirty times their scatter: it is known from its own three seeds alone."""
    random = np.random.default_rng(4)
    logs = {f"s{k}": random.normal(0.0, 0.002, 3) for k in range(8)} | {"scratch": np.array([-0.07, 0.0, 0.07])}
    scatter = Scatter(logs)
    assert deviation(scatter, "s0", 3) < 0.004
    assert 0.035 < deviation(scatter, "scratch", 3) < 0.14


def test_without_seeds_the_groups_interval_is_left() -> None:
    estimate = Estimate(0.1, 0.05, 4.0, 6)
    scatter = Scatter({"a": [0.0, 1e-6], "b": [0.0, 1e-6], "c": [0.0, 1e-6]})
    found = statistics.with_seeds(estimate, scatter, ["a", "b"], 0.99)
    assert found.high - 0.1 == pytest.approx(float(stats.t.ppf(0.99, 4)) * 0.05, rel=0.01)


def test_without_groups_to_speak_of_the_normal_interval_over_seeds_is_left() -> None:
    random = np.random.default_rng(5)
    scatter = Scatter({name: random.normal(0.0, 0.03, 200) for name in "abcdef"})
    found = statistics.with_seeds(Estimate(0.0, 0.0, 100.0, 101), scatter, ["a", "b"], 0.975)
    assert found.high == pytest.approx(1.96 * 0.03 * math.sqrt(2 / 200), rel=0.08)
