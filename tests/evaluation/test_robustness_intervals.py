"""Intervals and survival curves against SciPy's, and against what is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats as reference

from retemper.evaluation.robustness import statistics, units
from retemper.evaluation.robustness.units import Unit


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (3, 20), (10, 20), (20, 20), (117, 400)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    share, low, high = statistics.wilson(hits, n)
    interval = reference.binomtest(hits, n).proportion_ci(method="wilson")
    assert share == hits / n
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_nothing_counted_knows_nothing() -> None:
    share, low, high = statistics.wilson(0, 0)
    assert np.isnan(share) and (low, high) == (0.0, 1.0)


def test_survival_of_the_leukemia_trial() -> None:
    """Remission of 21 patients with 6-MP (weeks): E. J. Freireich et al., Blood 21, 699 (1963), the textbook example.

    Its Kaplan-Meier estimates: D. G. Kleinbaum and M. Klein, Survival Analysis (2012), table 2.3.
    """
    ended = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    watched = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    rows = statistics.survival([*ended, *watched], [True] * 9 + [False] * 12)
    published = {6: 0.8571, 7: 0.8067, 10: 0.7529, 13: 0.6902, 16: 0.6275, 22: 0.5378, 23: 0.4482, 35: 0.4482}
    assert {time: round(share, 4) for time, share, _, _ in rows[1:]} == published
    # by hand at 6 weeks: Greenwood's sum 3/(21 * 18) on the log(-log) scale
    half = 1.959964 * np.sqrt(3 / (21 * 18)) / abs(np.log(18 / 21))
    assert rows[1][2:] == pytest.approx(((18 / 21) ** np.exp(half), (18 / 21) ** np.exp(-half)), rel=1e-6)


def test_survival_when_all_fail() -> None:
    rows = statistics.survival([1.0, 2.0], [True, True])
    assert rows[-1][:2] == (2.0, 0.0)
    assert rows[-1][2:] == pytest.approx(statistics.wilson(0, 2)[1:])


def test_survival_without_failure_is_open_below() -> None:
    rows = statistics.survival([1.0] * 4, [False] * 4)
    assert rows[-1][:2] == (1.0, 1.0) and rows[-1][2] == pytest.approx(statistics.wilson(4, 4)[1])


def test_bootstrap_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    value, low, high = statistics.bootstrap(values)
    assert value == values.mean()
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_blocks_are_runs_of_neighbours() -> None:
    index = statistics.blocks(100, 10, np.random.default_rng(0))
    assert len(index) == 100 and index.max() < 100
    assert (np.diff(index.reshape(10, 10), axis=1) == 1).all()


def test_score() -> None:
    assert statistics.score(30.0, 0.0, 40.0) == 0.25
    assert statistics.score(99.0, 0.0, 40.0) == 0.0
    assert statistics.score(101.0, 100.0, 50.0) == 1.0
    assert statistics.score(float("nan"), 0.0, 1.0) is None


# ------------------------------------------------------------------ units in groups


def test_a_share_of_single_units_is_wilsons() -> None:
    met = [True] * 3 + [False] * 17
    assert statistics.share(met, range(20)) == pytest.approx(statistics.wilson(3, 20), abs=1e-9)
    assert statistics.share([True] * 4, "abcd")[1] == pytest.approx(0.51, abs=0.005)


@pytest.mark.parametrize(("groups", "size"), [(6, 8), (12, 4)])
@pytest.mark.parametrize(("share", "correlation"), [(0.02, 0.3), (0.1, 0.6), (0.5, 0.6), (0.3, 0.0)])
def test_intervals_of_shares_hold_the_truth_in_groups(groups: int, size: int, share: float, correlation: float) -> None:
    """Beta-binomial groups of a known share; Wilson's interval over all units, as it was, holds it far less often."""
    rng = np.random.default_rng(0)
    names = np.repeat(np.arange(groups), size)
    held = wilson = 0
    for _ in range(60):
        chance = np.full(groups, share)
        if correlation:
            spread = 1 / correlation - 1
            chance = rng.beta(share * spread, (1 - share) * spread, groups)
        met = rng.random(groups * size) < chance[names]
        _, low, high = statistics.share(met, names.tolist())
        held += low <= share <= high
        _, low, high = statistics.wilson(int(met.sum()), len(met))
        wilson += low <= share <= high
    assert held >= 51  # binomial(60, 0.93) falls below 51 less than twice in a hundred times
    if correlation == 0.6 and size == 8:
        assert wilson < 48


def of(values: list[list[float]]) -> list[Unit]:
    return [Unit(str(g), str(k), value) for g, group in enumerate(values) for k, value in enumerate(group)]


def test_paired_units_cancel_what_makes_a_composition_hard() -> None:
    """Six compositions of 0 to 62 % holes: the difference is known better than the two shares."""
    hard = [[100.0 * (k < g) for k in range(8)] for g in range(6)]
    better = [[0.0 if k == 0 else value for k, value in enumerate(group)] for group in hard]
    found = units.paired_difference(of(better), of(hard))
    assert found.value == pytest.approx(-100 * 5 / 48) and found.groups == 6
    lone = [units.share_over_groups(of(side)) for side in (better, hard)]
    assert found.high - found.low < lone[1][2] - lone[0][1]


def test_no_difference_in_few_compositions_does_not_show_that_there_is_none() -> None:
    same = of([[0.0] * 8] * 6)
    found = units.paired_difference(same, same)
    assert found.value == 0.0 and found.low < -10 and found.high > 10


def test_ratios_are_compared_by_their_sums() -> None:
    """RMSE ratios 2 and 1 of the same weights: their difference is 1 whatever the groups."""
    ours = [Unit(str(k // 2), str(k), 4.0 * (1 + k), 1.0 + k, 0.5) for k in range(10)]
    theirs = [Unit(str(k // 2), str(k), 1.0 + k, 1.0 + k, 0.5) for k in range(10)]
    found = units.paired_difference(ours, theirs)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_units_are_kept_as_they_are(tmp_path: Path) -> None:
    own = {"rss": of([[100.0, 0.0]]), "retention": [Unit("water", "frame 3", 1.25e-3, 0.5, 0.5)]}
    units.write(tmp_path / "units.csv", own)
    assert units.read(tmp_path / "units.csv") == own
    assert units.read(tmp_path / "nothing.csv") == {}
