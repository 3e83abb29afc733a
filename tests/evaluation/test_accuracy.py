"""Error metrics by hand, intervals against the analytic ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy import stats

from retemper.core.errors import RetemperError
from retemper.data.frames import ENERGY, FORCES, STRESS
from retemper.evaluation import accuracy
from retemper.models.predictions import Predictions

GROUPS = ["water", "hydrochloric acid", "salt"]


def example() -> tuple[list[Atoms], Predictions]:
    """Three frames whose errors are plain numbers."""
    water, chlorine, crystal = molecule("H2O"), molecule("HCl"), bulk("NaCl", "rocksalt", a=5.6)
    frames = [water, chlorine, crystal]
    for atoms, config_type in zip(frames, ("wet", "dry", "dry"), strict=True):
        atoms.info |= {ENERGY: 10.0, "config_type": config_type}
        atoms.arrays[FORCES] = np.ones((len(atoms), 3))
    crystal.info[STRESS] = np.array([0.1, 0.2, 0.3, 0.0, 0.0, 0.05])  # Voigt
    energy = np.array([10.003, 9.996, 10.0])  # +1, -2, 0 meV/atom
    forces = [np.ones((3, 3)), np.ones((2, 3)), np.ones((2, 3))]
    forces[0][0] += 0.01  # the oxygen: 10 meV/A in x, y, z
    forces[1][0, 0] -= 0.03  # one component of a hydrogen... of HCl's first atom
    stress = np.full((3, 3, 3), np.nan)
    stress[2] = [[0.1, 0.05, 0.0], [0.05, 0.2, 0.0], [0.0, 0.0, 0.309]]  # 9 meV/A^3 in zz
    return frames, Predictions(energy, forces, stress, "torch")


def test_metrics_by_hand() -> None:
    frames, predicted = example()
    errors = accuracy.frame_errors(frames, predicted, GROUPS)
    assert accuracy.values(errors) == pytest.approx(
        {
            "energy_mae": 1.0,
            "energy_rmse": np.sqrt(5 / 3),
            "force_mae": (3 * 10 + 30) / 21,
            "force_rmse": np.sqrt((3 * 100 + 900) / 21),
            "stress_mae": 1.0,
            "stress_rmse": 3.0,
        }
    )
    np.testing.assert_allclose(errors.force_rmse, [np.sqrt(300 / 9), np.sqrt(900 / 6), 0.0], atol=1e-9)
    report = accuracy.summarise(errors, 0.95)
    assert report.by_config_type["dry"].n_frames == 2
    assert report.by_config_type["dry"].energy_rmse == pytest.approx(np.sqrt(2.0))
    assert report.by_config_type["wet"].force_rmse == pytest.approx(np.sqrt(300 / 9))
    assert report.by_element["O"].model_dump() == pytest.approx({"n_atoms": 1, "force_mae": 10.0, "force_rmse": 10.0})
    assert report.by_element["Na"].model_dump() == pytest.approx({"n_atoms": 1, "force_mae": 0.0, "force_rmse": 0.0})
    first = str(frames[1].symbols[0])
    other = {"H": 3, "Cl": 2}[first]  # atoms of that element in the example
    assert report.by_element[first].force_rmse == pytest.approx(np.sqrt(900 / (3 * other)))


def test_an_energy_shift_moves_energies_alone() -> None:
    frames, predicted = example()
    shifted = accuracy.values(accuracy.frame_errors(frames, predicted, GROUPS, np.array([-0.003, 0.004, 0.0])))
    plain = accuracy.values(accuracy.frame_errors(frames, predicted, GROUPS))
    assert shifted["energy_rmse"] == pytest.approx(0.0, abs=1e-9)
    assert shifted["force_rmse"] == plain["force_rmse"]


def test_no_stress_anywhere_is_null() -> None:
    frames, predicted = example()
    errors = accuracy.frame_errors(
        frames[:2], Predictions(predicted.energy[:2], predicted.forces[:2], predicted.stress[:2], ""), GROUPS[:2]
    )
    report = accuracy.summarise(errors, 0.95)
    assert report.stress_mae is None and report.stress_rmse is None


def test_frames_without_labels_are_named() -> None:
    frames, predicted = example()
    del frames[1].info[ENERGY]
    with pytest.raises(RetemperError, match="frame 1 .* has no reference labels"):
        accuracy.frame_errors(frames, predicted, GROUPS)


def gaussian(n: int, sigma: float, seed: int) -> accuracy.FrameErrors:
    """Frames of one atom with independent normal errors of `sigma` meV/atom and meV/A."""
    rng = np.random.default_rng(seed)
    forces = rng.normal(scale=sigma, size=(n, 3))
    zero = np.zeros(n)
    return accuracy.FrameErrors(
        n_atoms=np.ones(n, dtype=int),
        config_type=["a"] * n,
        group=[str(k) for k in range(n)],
        energy=rng.normal(scale=sigma, size=n),
        force_abs=np.abs(forces).sum(axis=1),
        force_sq=(forces**2).sum(axis=1),
        stress_abs=zero,
        stress_sq=zero,
        n_stress=zero.astype(int),
    )


def test_intervals_are_the_analytic_ones_for_gaussian_errors() -> None:
    """n RMSE^2 / sigma^2 is chi-squared with n degrees of freedom (3 n for force components);
    the mean of |x| has the standard error sigma sqrt((1 - 2/pi) / n).
    """
    n, sigma = 2000, 25.0
    errors = gaussian(n, sigma, seed=1)
    report = accuracy.summarise(errors, 0.9)
    for name, degrees in (("energy_rmse", n), ("force_rmse", 3 * n)):
        low, high = np.sqrt(stats.chi2.ppf([0.05, 0.95], degrees) / degrees)
        measured = getattr(report, name)
        width = (measured.high - measured.low) / measured.value
        assert width == pytest.approx(high - low, rel=0.08)
        assert measured.low < measured.value < measured.high
    mae = report.energy_mae
    expected = 2 * stats.norm.ppf(0.95) * sigma * np.sqrt((1 - 2 / np.pi) / n)
    assert mae.high - mae.low == pytest.approx(expected, rel=0.08)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Of 300 experiments with 200 frames, an 80 % interval misses the true RMSE in some 60."""
    misses = 0
    for seed in range(300):
        found = accuracy.summarise(gaussian(200, 10.0, seed), 0.8).energy_rmse
        misses += not found.low < 10.0 < found.high
    low_count, high_count = stats.binom.ppf([1e-4, 1 - 1e-4], 300, 0.2)
    assert low_count <= misses <= high_count


def test_one_group_has_no_interval() -> None:
    errors = dataclasses.replace(gaussian(50, 10.0, 0), group=["one trajectory"] * 50)
    report = accuracy.summarise(errors, 0.95)
    assert report.n_groups == 1 and report.energy_rmse.low is report.energy_rmse.high is None


def test_over_seeds_and_ratio() -> None:
    """Errors of one frame doubled: mean, deviation and ratio by hand, each with the interval over groups."""
    one, base = gaussian(60, 10.0, 0), gaussian(60, 20.0, 3)
    two = dataclasses.replace(one, energy=2 * one.energy)
    first = accuracy.values(one)["energy_rmse"]
    found = accuracy.over_seeds([one, two], "energy_rmse", 0.9)
    assert found is not None
    assert (found.value, found.std) == pytest.approx((1.5 * first, first / np.sqrt(2)))
    alone = accuracy.over_seeds([one], "energy_rmse", 0.9)
    assert alone is not None and alone.std is None
    low, high = (found.low / alone.low, found.high / alone.high)
    assert (low, high) == pytest.approx((1.5, 1.5))
    ratio = accuracy.ratio([one, two], base, "energy_rmse", 0.9)
    assert ratio.value == pytest.approx(1.5 * first / accuracy.values(base)["energy_rmse"])
    assert accuracy.over_seeds([one], "stress_rmse", 0.9) is None
