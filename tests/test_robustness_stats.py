"""Intervals and survival curves against SciPy's, and against what is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from retemper.robustness import stats


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (3, 20), (10, 20), (20, 20), (117, 400)])
def test_wilson_is_scipys(hits: int, n: int) -> None:
    share, low, high = stats.wilson(hits, n)
    interval = reference.binomtest(hits, n).proportion_ci(method="wilson")
    assert share == hits / n
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_nothing_counted_knows_nothing() -> None:
    share, low, high = stats.wilson(0, 0)
    assert np.isnan(share) and (low, high) == (0.0, 1.0)


def test_survival_is_scipys() -> None:
    times = [3.0, 5.0, 5.0, 8.0, 10.0, 10.0, 10.0]
    failed = [True, True, False, True, False, False, False]
    data = reference.CensoredData(uncensored=[3, 5, 8], right=[5, 10, 10, 10])
    survival = reference.ecdf(data).sf
    interval = survival.confidence_interval(method="log-log")
    rows = stats.survival(times, failed)
    assert rows[0][:2] == (0.0, 1.0)
    for time, share, low, high in rows[1:]:
        assert share == pytest.approx(float(survival.evaluate(time)))
        assert low == pytest.approx(float(interval.low.evaluate(time)))
        assert high == pytest.approx(float(interval.high.evaluate(time)))


def test_survival_without_failure_is_open_below() -> None:
    rows = stats.survival([1.0] * 4, [False] * 4)
    assert rows[-1][:2] == (1.0, 1.0) and rows[-1][2] == pytest.approx(stats.wilson(4, 4)[1])


def test_bootstrap_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    value, low, high = stats.bootstrap(values)
    assert value == values.mean()
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)


def test_blocks_are_runs_of_neighbours() -> None:
    index = stats.blocks(100, 10, np.random.default_rng(0))
    assert len(index) == 100 and index.max() < 100
    assert (np.diff(index.reshape(10, 10), axis=1) == 1).all()


def test_score() -> None:
    assert stats.score(30.0, 0.0, 40.0) == 0.25
    assert stats.score(99.0, 0.0, 40.0) == 0.0
    assert stats.score(101.0, 100.0, 50.0) == 1.0
    assert stats.score(float("nan"), 0.0, 1.0) is None
