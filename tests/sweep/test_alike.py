"""Which settings cannot be told apart: by groups of validation structures, not by their third digit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.records.sweep import GroupErrors
from retemper.sweep import alike, output
from retemper.sweep.choice import Trial, choose

GROUPS = [f"trajectory {k}" for k in range(6)]
COMPONENTS = 900.0


def project(root: Path) -> Project:
    settings = {"system": "salt", "foundation": "mini", "strategies": ["naive"], "seeds": [1]}
    dataset = {"files": ["data/raw/nacl.extxyz"], "level_of_theory": "GFN2-xTB"}
    return Project(root, Settings.model_validate({**settings, "dataset": dataset}))


def training(root: Path, name: str, logs: dict[str, np.ndarray]) -> dict[str, float]:
    """A finished training whose force errors by group are exp(`logs`) eV/A; returns its values, meV/A."""
    errors = {}
    for part, log in logs.items():
        counts, squares = dict.fromkeys(GROUPS, COMPONENTS), COMPONENTS * np.exp(2 * log)
        errors[part] = GroupErrors(counts=counts, squares=dict(zip(GROUPS, squares.tolist(), strict=True)))
    alike.write(root / ".cache/training" / name, errors)
    return {part: 1e3 * float(np.sqrt(np.exp(2 * log).mean())) for part, log in logs.items()}


def sweep(root: Path, rng: np.random.Generator, worse: float, number: int = 8) -> list[Trial]:
    """Trials that differ by 10 % on each trajectory, by chance; all but the first are worse by `worse`."""
    common, trials = {part: rng.normal(-3.0, 0.5, len(GROUPS)) for part in ("target", "retention")}, []
    for k in range(number):
        own = {part: log + 0.1 * rng.normal(size=len(GROUPS)) for part, log in common.items()}
        own["target"] += worse * (k > 0)
        trials.append(Trial(k, "complete", {}, training(root, f"t{k}", own), training=f"t{k}"))
    return trials


def compared(root: Path, trials: list[Trial], scope: str) -> alike.Alike:
    objectives = ["target", "retention"]
    found = output.comparable_trials(choose(trials, objectives, scope), trials, objectives, scope, project(root))
    assert found is not None
    return found


@pytest.mark.parametrize("scope", ["single-system", "family", "broad"])
def test_equal_settings_are_called_alike(tmp_path: Path, scope: str) -> None:
    """Nothing planted: the winner is the luckiest of eight, and most of the others are not told apart from it."""
    found = compared(tmp_path, sweep(tmp_path, np.random.default_rng(1), 0.0), scope)
    assert found.compared == 7 and found.groups == 6 and len(found.trials) >= 4
    assert f"{len(found.trials)} of 7 other settings cannot be told apart" in found.sentence()


def test_a_clear_winner_is_told_apart(tmp_path: Path) -> None:
    trials = sweep(tmp_path, np.random.default_rng(1), 0.7)
    assert compared(tmp_path, trials, "single-system").trials == ()
    assert len(compared(tmp_path, trials, "broad").trials) > 0  # four times the chance in retention


def test_one_trajectory_that_decides_is_no_six(tmp_path: Path) -> None:
    """Better by a factor of two on the trajectory that makes the error, and equal on the others."""
    log = np.array([0.0, -3.0, -3.0, -3.0, -3.0, -3.0])
    values = [training(tmp_path, f"t{k}", {"target": log + k * np.eye(6)[0] * np.log(2)}) for k in range(2)]
    trials = [Trial(k, "complete", {}, v, training=f"t{k}") for k, v in enumerate(values)]
    found = output.comparable_trials(trials[0], trials, ["target"], "single-system", project(tmp_path))
    assert found is not None and found.trials == (1,)


def test_the_difference_is_the_paired_t(tmp_path: Path) -> None:
    """Small differences, equal groups: Student's t of the groups' differences of squares over the sum."""
    rng = np.random.default_rng(3)
    ours, theirs = {}, {}
    for errors, shift in ((ours, 0.0), (theirs, 0.001 * rng.normal(size=6))):
        squares = COMPONENTS * np.exp(2 * np.broadcast_to(shift, 6))
        counts = dict.fromkeys(GROUPS, COMPONENTS)
        errors["target"] = GroupErrors(counts=counts, squares=dict(zip(GROUPS, squares.tolist(), strict=True)))
    found = alike.difference(ours, theirs, {"target": 1.0}, 0.0).interval(0.975)
    each = 0.5 * np.array([theirs["target"].squares[g] / ours["target"].squares[g] for g in GROUPS])
    expected = stats.ttest_1samp(each, 0.5).confidence_interval(0.95)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.01)


def test_what_was_measured_on_other_structures_is_left_out(tmp_path: Path) -> None:
    trials = sweep(tmp_path, np.random.default_rng(1), 0.0, 3)
    folder = tmp_path / ".cache/training/t2"
    errors = alike.read(folder)
    assert errors is not None
    for part in errors.values():
        for numbers in (part.counts, part.squares):
            numbers["trajectory 9"] = numbers.pop("trajectory 5")
    alike.write(folder, errors)
    winner = trials[0]
    found = output.comparable_trials(winner, trials, ["target"], "single-system", project(tmp_path))
    assert found is not None and found.compared == 1
    assert output.comparable_trials(winner, trials, ["target-loss"], "single-system", project(tmp_path)) is None
    few = alike.Alike((), 1, 4)
    assert "too few" in few.sentence()
