"""Calibration against distributions whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from retemper.active import calibrate
from retemper.active.stopping import POINTS, power_law, predicted_gain, reason
from retemper.config.settings import Stop
from retemper.records.campaign import ForceError, Gates, RoundResult


def gaussian(frames: int, atoms: int, factor: float, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Uncertainties and errors that are normal with `factor` times the uncertainty."""
    rng = np.random.default_rng(seed)
    uncertainty = [rng.uniform(0.1, 2.0, atoms) for _ in range(frames)]
    return uncertainty, [factor * u[:, None] * rng.normal(size=(atoms, 3)) for u in uncertainty]


def alone(frames: list[np.ndarray]) -> list[str]:
    """Every frame a group of its own."""
    return [str(k) for k in range(len(frames))]


def test_a_true_uncertainty_is_found_calibrated() -> None:
    uncertainty, error = gaussian(60, 50, 0.3)
    found = calibrate.calibrate(uncertainty, error, alone(error))
    assert found.alpha == pytest.approx(0.3, rel=0.02)  # the factor that was put in
    assert found.miscalibration < 0.01
    assert found.spearman_low < found.spearman < found.spearman_high
    assert found.informative
    assert found.auroc > 0.7


def test_what_was_expected_is_judged_not_fitted_again() -> None:
    """Errors of ten times the expected size: of a normal distribution, this area lies between the confidences."""
    from scipy.stats import norm

    uncertainty, error = gaussian(60, 50, 0.3)
    scale = calibrate.Scale.of(calibrate.calibrate(uncertainty, error, alone(error)))
    found = calibrate.calibrate(uncertainty, [10 * e for e in error], alone(error), scale)
    assert found.alpha == pytest.approx(0.3, rel=0.02)
    inside = 2 * norm.cdf(norm.ppf((1 + calibrate.LEVELS) / 2) / 10) - 1
    assert found.miscalibration == pytest.approx(np.mean(calibrate.LEVELS - inside), abs=0.005)


def test_one_atom_without_spread_does_not_decide() -> None:
    uncertainty, error = gaussian(30, 20, 1.0)
    uncertainty[0][0], error[0][0] = 1e-16, 1e-5
    found = calibrate.calibrate(uncertainty, error, alone(error))
    assert found.alpha == pytest.approx(1.0, rel=0.05)
    assert calibrate.Scale.of(found).expected(uncertainty[0]).min() == pytest.approx(
        found.alpha * 1.05e-2, rel=0.1
    )  # median 1.05


def test_noise_is_called_not_informative() -> None:
    rng = np.random.default_rng(1)
    uncertainty = [rng.uniform(0.1, 2.0, 30) for _ in range(20)]
    error = [rng.normal(size=(30, 3)) for _ in range(20)]
    found = calibrate.calibrate(uncertainty, error, alone(error))
    assert found.spearman_low < 0 < found.spearman_high
    assert not found.informative
    assert "NOT INFORMATIVE" in found.sentence()


def test_frames_of_a_trajectory_are_not_independent() -> None:
    """Each trajectory has its own level of uncertainty and, unrelated, of error: by chance they go together.

    Over frames every fifth set or so of six trajectories is called informative; over groups 2.5 % are to be.
    """
    rng, sets = np.random.default_rng(2), 200
    informative = {"groups": 0, "frames": 0}
    for _ in range(sets):
        uncertainty, error, groups = [], [], []
        for group in "abcdef":
            level, size = np.exp(0.5 * rng.normal(size=2))
            uncertainty += [level * np.exp(0.2 * rng.normal(size=20)) for _ in range(5)]
            error += [size * rng.normal(size=(20, 3)) for _ in range(5)]
            groups += [group] * 5
        informative["groups"] += calibrate.calibrate(uncertainty, error, groups).informative
        informative["frames"] += calibrate.calibrate(uncertainty, error, alone(error)).informative
    assert informative["groups"] <= binom.ppf(0.999, sets, 0.025)
    assert informative["frames"] > 0.15 * sets


def test_two_groups_tell_nothing() -> None:
    found = calibrate.calibrate(*gaussian(6, 500, 1.0), [*"aaabbb"])
    assert (found.spearman_low, found.spearman_high) == (-1.0, 1.0)
    assert not found.informative


@pytest.mark.parametrize(("factor", "area"), [(1e-9, 0.5), (1e9, 0.5)])
def test_miscalibration_has_its_limits(factor: float, area: float) -> None:
    """All errors inside every interval, or none inside any: half of the unit square lies between."""
    z = factor * np.random.default_rng(0).normal(size=1000)
    assert calibrate.miscalibration(z) == pytest.approx(area, abs=0.01)


def test_auroc_by_pairs() -> None:
    """The definition: the share of pairs of a large and a small error that the uncertainty puts in order."""
    rng = np.random.default_rng(0)
    error, uncertainty = rng.random(40), rng.integers(0, 6, 40).astype(float)
    worst = error >= np.quantile(error, 0.9)
    pairs = [(a > b) + 0.5 * (a == b) for a in uncertainty[worst] for b in uncertainty[~worst]]
    assert calibrate.auroc(uncertainty, error) == pytest.approx(np.mean(pairs))


def test_spearman_is_scipys() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 50).astype(float), rng.random(50)
    assert calibrate.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert calibrate.spearman(np.ones(5), b[:5]) == 0.0


def test_an_element_that_is_new_is_the_least_sure() -> None:
    found = calibrate.positive(np.array([0.0, 1.0, np.inf, np.nan]))
    assert np.isfinite(found).all() and found[0] > 0
    assert found[2] == found[3] == found.max()


def test_the_plot_is_written(tmp_path: Path) -> None:
    uncertainty, error = gaussian(5, 20, 0.3)
    calibrate.plot(uncertainty, error, calibrate.calibrate(uncertainty, error, alone(error)), tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def entry(train: int, error: float, hold: bool = False) -> RoundResult:
    return RoundResult(
        round=0, labelled=0, failed=0, identity=None, used=0, unused={}, train=train, valid=0, test=None,
        strategy="naive", champion=False, force_rmse=ForceError(mean=error, low=None, high=None),
        gates=Gates(hold=hold, outcomes=[]), selector=None,
    )  # fmt: skip


def test_a_power_law_is_found_again() -> None:
    n = np.array([10.0, 20.0, 40.0, 80.0])
    assert power_law(list(n), list(300 * n**-0.4)) == pytest.approx((300, 0.4))


def test_why_a_campaign_stops() -> None:
    steep = [entry(n, 300 * n**-0.5) for n in (10, 20, 30, 40)]
    assert predicted_gain(steep, 10) == pytest.approx(1 - (50 / 40) ** -0.5)
    assert predicted_gain(steep[: POINTS - 1], 10) is None
    assert reason(steep, Stop(), 10) is None
    flat = [entry(n, 100 * n**-0.01) for n in (10, 20, 30, 40)]
    assert "learning curve" in str(reason(flat, Stop(), 10))
    assert reason(flat, Stop(gain=None), 10) is None
    held = [entry(10, 200.0), entry(20, 150.0, True), entry(30, 100.0, True)]
    assert "all gates hold for 2" in str(reason(held, Stop(), 10))
    assert reason(held[:2], Stop(), 10) is None
    assert reason(held, Stop(gates=None), 10) is None
