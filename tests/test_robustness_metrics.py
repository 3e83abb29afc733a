"""Every metric passes a sound calculator and finds the defect that was planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from scipy.stats import wasserstein_distance

from retemper.frames import ENERGY, FORCES, read_frames
from retemper.robustness import calculators, engine, metrics, simulate, suite
from retemper.robustness.calculators import Subject
from retemper.robustness.context import Context, NotApplicableError
from retemper.robustness.metrics import md, physics, rss, short_range
from retemper.robustness.outcome import Found

PAIR = (13, 29)  # Al, Cu


def planted(**defect: float) -> Subject:
    options = ", ".join(f"{key}={value}" for key, value in defect.items())
    return calculators.describe(f"ase:planted:Pairwise({options})")


def crystals() -> list[Atoms]:
    """Ordered AlCu cells near the minimum of the sound calculator, slightly moved."""
    frames = []
    for k in range(3):
        atoms = bulk("AlCu", "cesiumchloride", a=2.9).repeat((2, 2, 2 + k // 2))
        atoms.rattle(0.02, seed=k)
        frames.append(atoms)
    return frames


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Context:
    """Two elements and small crystals; searches and dynamics shorter than any level."""
    monkeypatch.setitem(rss.SIZES, "quick", {"compositions": 3, "each": 4, "rounds": 2, "steps": 40, "fmax": 0.1})
    monkeypatch.setitem(simulate.SIZES, "quick", {"replicas": 2, "steps": 250, "stride": 5})
    frames = crystals()
    return Context(planted(), PAIR, frames=frames, reference=frames)


def found(name: str, here: Context, cache: Path, **changes: Any) -> Found:
    here = replace(here, **changes)
    module = metrics.load(name)
    result: Found = module.measure(here, engine.run(module.plan(here), workers=1, cache=cache))
    return result


# ------------------------------------------------------------------ short range


def test_short_range_passes_sound_pairs_and_finds_a_hole(here: Context, tmp_path: Path) -> None:
    sound = found("short_range", here, tmp_path)
    assert sound.value == 100.0 and not sound.failed
    assert sound.details["force_flips"] == 3 and sound.details["extra_minima"] == 0  # one flip a pair: its minimum
    assert all(own["conservation"] < 0.05 for own in sound.details["pairs"].values())
    broken = found("short_range", here, tmp_path, subject=planted(hole=300.0))
    assert broken.details["dimers_sound"] == "0 of 3"
    assert broken.value is not None and broken.value < 40 and broken.failed


def test_short_range_finds_a_many_body_hole_behind_sound_pairs(here: Context, tmp_path: Path) -> None:
    broken = found("short_range", here, tmp_path, subject=planted(crowd=8.0))
    assert broken.details["dimers_sound"] == "3 of 3"
    sound, of = map(int, broken.details["compressions_sound"].split(" of "))
    assert sound < of
    assert {atoms.info["failed"].split()[0] for atoms in broken.failed} == {"compression"}


def test_short_range_against_an_oracle(here: Context, tmp_path: Path) -> None:
    same = found("short_range", here, tmp_path, oracle=planted())
    assert all(own["oracle_force_rmse"] == 0.0 for own in same.details["pairs"].values())
    other = found("short_range", here, tmp_path, oracle=planted(depth=0.8))
    assert all(own["oracle_force_rmse"] > 100.0 for own in other.details["pairs"].values())


def test_short_range_of_a_calculator_that_fails_inside(here: Context, tmp_path: Path) -> None:
    result = found("short_range", here, tmp_path, subject=planted(limit=1.8))
    assert any("did not converge" in line for line in result.details["not_computed"])


def test_curve_of_a_lennard_jones_pair() -> None:
    """Minimum at 2^(1/6) sigma, one flip; a maximum inside makes it a hole."""
    r = np.linspace(2.0, 8.0, 200)
    energy, force = 4 * (r**-12 * 3**12 - r**-6 * 3**6), 4 * (12 * 3**12 * r**-13 - 6 * 3**6 * r**-7)
    curve = short_range.judge(r, energy, force, 2.3, 1.0, 0.02)
    assert curve.sound and curve.flips == 1 and curve.minima == 1 and curve.conservation < 2.0
    well = 300 * np.exp(-(((r - 2.3) / 0.15) ** 2))
    broken = short_range.judge(r, energy - well, force - well * 2 * (r - 2.3) / 0.15**2, 2.2, 1.0, 0.02)
    assert not broken.sound and 2.2 < r[broken.deepest] < 2.5


# ------------------------------------------------------------------ random search


def test_rss_passes_a_sound_calculator_and_finds_a_hole(here: Context, tmp_path: Path) -> None:
    sound = found("rss", here, tmp_path)
    assert sound.value == 0.0 and sound.n == 24 and sound.high is not None and sound.high < 15
    broken = found("rss", here, tmp_path, subject=planted(hole=300.0))
    assert broken.value is not None and broken.value > 30
    assert broken.low is not None and broken.low > sound.high
    assert all(atoms.info["criteria"] for atoms in broken.failed)


def test_rss_keeps_failures_of_the_calculator_apart(here: Context, tmp_path: Path) -> None:
    result = found("rss", here, tmp_path, subject=planted(limit=2.2))
    assert sum(result.details["reasons"].values()) > 0
    parts = [result.details[key] for key in ("0.1 GPa", "50 GPa")]
    assert sum(part["n"] + part["not_computed"] for part in parts) == 24
    assert any("did not converge" in reason for reason in result.details["reasons"])


def test_criteria_of_the_paper() -> None:
    """Ten sound structures and one that breaks each criterion."""

    def one(volume: float, energy: float, distance: float, reason: str = "") -> dict[str, Any]:
        cell = np.diag([10.0, 10.0, 2 * volume / 100])
        positions = np.array([[0.0, 0, 0], [distance, 0, 0]])
        return {
            "numbers": np.array([29, 29]),
            "positions": positions,
            "cell": cell,
            "energy": 2 * energy,
            "reason": reason,
        }

    radii = 2 * 1.32  # Cu, Cordero 2008
    sound = [one(400.0 + k, -3.0 + 0.01 * k, 2.5) for k in range(10)]
    bad = {
        "close": one(400.0, -3.0, 0.49 * radii),
        "ratio": one(400.0, -3.0, 0.59 * radii),
        "volume": one(0.29 * 405, -2.0, 2.5),
        "energy": one(400.0, -3.0 - 5.2, 2.5),
        "dense": one(0.49 * 405, -3.5, 2.5),
        "collapsed": one(400.0, np.nan, 2.5, "cell collapsed to 0.4 A^3/atom"),
    }
    flags = rss.judge([*sound, *bad.values()])
    assert not any(flags[:10])
    for name, own in zip(bad, flags[10:], strict=True):
        assert name in own
    assert rss.judge([*sound, one(400.0, np.nan, 2.5, "SCF not converged")])[-1] == []


# ------------------------------------------------------------------ dynamics and structure


def test_md_passes_a_sound_calculator_and_finds_an_explosion(here: Context, tmp_path: Path) -> None:
    sound = found("md", here, tmp_path)
    assert sound.value == 100.0 and sound.n == 6  # two replicas each: NVT, ramp, NPT
    assert not sound.failed
    broken = found("md", here, tmp_path, subject=planted(swirl=3.0))
    assert broken.value is not None and broken.value < 50 and broken.failed
    assert any("temperature" in why for why in broken.details["failures"]["nvt"])


def run_of(positions: np.ndarray, symbols: str, **changes: Any) -> dict[str, Any]:
    n = len(positions)
    numbers = Atoms(symbols).numbers
    run = {"numbers": numbers, "pbc": np.zeros(3, bool), "time": np.arange(n) * 5.0, "positions": positions}
    run |= {"cells": np.zeros((n, 3, 3)), "potential": np.zeros(n), "kinetic": np.full(n, 0.0388 * len(numbers))}
    return {**run, "target": np.full(n, 300.0), "stopped": "", "planned": 5.0 * (n - 1), **changes}


def test_first_failures() -> None:
    water = molecule("H2O").positions
    steady = np.repeat(water[None], 10, axis=0)
    assert md.first_failure(run_of(steady, "OH2")) == (9, "")
    lost = steady.copy()
    lost[4:, 1] += np.linspace(1, 6, 6)[:, None]
    index, why = md.first_failure(run_of(lost, "OH2"))
    assert index == 6 and why.startswith("bond lost: O-H")
    assert md.first_failure(run_of(lost, "OH2"), bonds=False)[1] == ""
    close = steady.copy()
    close[3, 1] = water[0] + [0.3, 0, 0]
    assert md.first_failure(run_of(close, "OH2"))[1].startswith("atoms too close")
    hot = run_of(steady, "OH2")
    hot["kinetic"][7] *= 6
    assert md.first_failure(hot)[0] == 7
    broken = run_of(steady, "OH2", potential=np.array([0.0] * 5 + [np.nan] * 5), stopped="not a number")
    assert md.first_failure(broken) == (5, "not a number")


def test_rdf_of_the_oracles_own_model_is_at_the_noise_floor(here: Context, tmp_path: Path) -> None:
    same = found("rdf", here, tmp_path, reference=[], oracle=planted())
    assert same.value == 0.0  # the same dynamics
    other = found("rdf", here, tmp_path, reference=[], oracle=planted(depth=0.1))
    assert other.value is not None and other.value > other.details["noise_floor"] > 0
    assert set(other.details["pairs"]) == {"Al-Al", "Al-Cu", "Cu-Cu"}


def test_interval_of_a_distance_holds_the_truth() -> None:
    """Normal samples shifted by d have the distance d; 95 % intervals from 40 frames hold it as often as they say."""
    rng = np.random.default_rng(0)
    rdf = metrics.load("rdf")
    held = 0
    for _ in range(100):
        ours, theirs = rng.normal(0.1, 0.2, (40, 5)), rng.normal(0.0, 0.2, (40, 5))

        def sample(side: np.ndarray) -> np.ndarray:
            return side[rng.integers(0, 40, 40)].ravel()

        drawn = np.array([wasserstein_distance(sample(ours), sample(theirs)) for _ in range(100)])
        low, high = rdf.interval(wasserstein_distance(ours.ravel(), theirs.ravel()), drawn)
        held += low <= 0.1 <= high
    assert 88 <= held <= 100  # binomial(100, 0.95) falls below 88 once in 300 times


def test_rdf_without_what_it_needs(here: Context, tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match="--reference"):
        metrics.load("rdf").plan(replace(here, reference=[]))
    with pytest.raises(NotApplicableError, match="--structures"):
        metrics.load("rdf").plan(replace(here, frames=[]))
    lacking = found("rdf", here, tmp_path, reference=[molecule("H2O")] * 9)
    assert lacking.value is None and lacking.reason is not None and "too few frames" in lacking.reason


# ------------------------------------------------------------------ physics


def test_physics_passes_a_sound_calculator(here: Context, tmp_path: Path) -> None:
    result = found("physics", here, tmp_path)
    assert result.value == 100.0, result.details
    assert result.details["checks"]["rotation"]["of"] == 2
    assert 3.5 < result.details["checks"]["time step"]["worst"] < 4.6


@pytest.mark.parametrize(
    ("defect", "checks"),
    [({"field": 0.5}, {"rotation", "permutation"}), ({"swirl": 0.3}, {"forces", "conservation"})],
)
def test_physics_finds_the_broken_law(
    here: Context, tmp_path: Path, defect: dict[str, float], checks: set[str]
) -> None:
    result = found("physics", here, tmp_path, subject=planted(**defect))
    wrong = {name for name, own in result.details["checks"].items() if own["holds"] < own["of"]}
    assert checks <= wrong
    assert result.value is not None and result.value < 100 and result.failed


def test_physics_compares_free_atoms(here: Context, tmp_path: Path) -> None:
    right = found("physics", here, tmp_path, free_atoms={13: 0.0, 29: 0.0})
    wrong = found("physics", here, tmp_path, free_atoms={13: -2.0, 29: 0.0})
    assert right.details["checks"]["free atom"]["holds"] == 2
    assert wrong.details["checks"]["free atom"]["holds"] == 1
    assert wrong.details["checks"]["free atom"]["worst"] == pytest.approx(2.0)


def test_drift_and_fluctuation_of_a_known_series() -> None:
    time = np.linspace(0, 2000, 4001)
    total = 1e-3 * (5.0 * time * 1e-3 + 0.3 * np.sqrt(2) * np.sin(time / 7))
    run = {"potential": 4 * total, "kinetic": 0 * total, "numbers": np.ones(4), "time": time}
    drift, fluctuation = physics.conservation(run)
    assert drift == pytest.approx(5.0, abs=0.02) and fluctuation == pytest.approx(0.3, rel=0.01)


# ------------------------------------------------------------------ retention, observables, cost


def labelled(calculator: Subject, noise: float = 0.0) -> list[Atoms]:
    frames = []
    rng = np.random.default_rng(0)
    for k, atoms in enumerate(crystals() * 4):
        atoms = atoms.copy()
        atoms.rattle(0.1, seed=50 + k)
        result = calculator.open()([atoms])
        atoms.arrays[FORCES] = result.forces[0] + rng.normal(0, noise, (len(atoms), 3))
        atoms.info |= {ENERGY: float(result.energy[0]), "config_type": ("even", "odd")[k % 2]}
        frames.append(atoms)
    return frames


def test_retention_is_the_ratio_to_the_foundation(here: Context, tmp_path: Path) -> None:
    """Labels of depth 0.40; a foundation of 0.44 and a model of 0.52: forces off by 10 and 30 %, a ratio of three."""
    frames = labelled(planted())
    result = found(
        "retention", here, tmp_path, retention=frames, subject=planted(depth=0.52), foundation=planted(depth=0.44)
    )
    assert result.value == pytest.approx(3.0, rel=1e-6)
    assert result.details["by_config_type"] == pytest.approx({"even": 3.0, "odd": 3.0})
    assert result.details["by_element"]["Cu"]["ratio"] == pytest.approx(3.0)
    itself = found(
        "retention", here, tmp_path, retention=frames, subject=planted(depth=0.44), foundation=planted(depth=0.44)
    )
    assert itself.value == itself.low == itself.high == 1.0


def test_retention_without_what_it_needs(here: Context) -> None:
    module = metrics.load("retention")
    with pytest.raises(NotApplicableError, match="foundation"):
        module.plan(here)
    with pytest.raises(NotApplicableError, match="labelled"):
        module.plan(replace(here, foundation=planted(), retention=crystals()))


def test_observables_of_known_figures(tmp_path: Path) -> None:
    """S66 and ice files whose figures are the calculator's own: no error; an oracle of twice the depth: 50 %."""
    from retemper.frames import write_frames

    kcal = 0.0433641153087705
    subject = planted()
    a, b = molecule("H2O"), molecule("H2O")
    b.positions += [0, 0, 2.8]
    energies = subject.open()([a, b, a + b]).energy
    both = a + b
    both.info |= {"name": "WaterWater", "ref_binding_kcal": float(energies[:2].sum() - energies[2]) / kcal}
    a.info["name"] = b.info["name"] = "monomer"
    write_frames(tmp_path / "s66.extxyz", [a, b, both])
    here = Context(subject, (1, 8), figures=tmp_path)
    result = found("observables", here, tmp_path)
    assert result.value == pytest.approx(0.0, abs=1e-4) and result.n == 1
    cluster = [a + b]
    against = found("observables", here, tmp_path, figures=None, frames=cluster, oracle=planted(depth=0.8))
    assert against.value == pytest.approx(50.0, abs=0.1)
    cluster[0].info["charge"] = -1  # of which part?
    for frames in ([], cluster):
        with pytest.raises(NotApplicableError, match="cohesion: frames of several molecules"):
            metrics.load("observables").plan(replace(here, figures=None, frames=frames, oracle=planted(depth=0.8)))


def test_a_barrier_is_the_saddles_height(tmp_path: Path) -> None:
    """An Al atom passes a Cu atom that blocks the way between two others; the ends are mirror images."""
    from retemper.robustness.paths import barrier

    fixed = [[0.0, 0, 0], [6.0, 0, 0], [3.0, 2.2, 0], [3.0, -2.2, 0]]
    ends = [Atoms("Cu4Al", [*fixed, [x, 0.0, 0.0]]) for x in (2.2, 3.8)]
    result = barrier(planted().open(), ends, images=3, steps=100)
    assert 0 <= result["barrier"] == pytest.approx(result["energies"].max() - result["energies"][0])
    np.testing.assert_allclose(result["energies"], result["energies"][::-1], atol=0.02)


def test_cost_measures_time_and_memory(here: Context, tmp_path: Path) -> None:
    result = found("cost", here, tmp_path)
    assert result.value is not None and 1 < result.value < 1e5
    assert 30 < result.details["memory_mb"] < 5000
    assert result.low is not None and result.high is not None and result.low <= result.value <= result.high


# ------------------------------------------------------------------ the suite


def test_suite_writes_numbers_tables_plots_and_failures(here: Context, tmp_path: Path) -> None:
    import json

    here = replace(here, subject=planted(hole=300.0))
    content = suite.evaluate(here, ["short_range", "retention"], tmp_path / "out", workers=1, cache=tmp_path / "cache")
    assert content == json.loads((tmp_path / "out/metrics.json").read_text())
    measured = content["metrics"]["short_range"]
    assert 0 <= measured["low"] <= measured["value"] <= measured["high"] <= 100 and measured["unit"] == "%"
    assert (
        content["metrics"]["retention"]["value"] is None and "foundation" in content["metrics"]["retention"]["reason"]
    )
    assert (tmp_path / "out/short_range-points.png").stat().st_size > 5000
    assert read_frames(tmp_path / "out/failed/short_range.extxyz")[0].info["config_type"] == "short-range"
    assert "not measured" in suite.table(content)


def test_a_reference_at_another_level_is_said_beside_the_number(here: Context, tmp_path: Path) -> None:
    """In metrics.json, in the table, and nowhere for metrics without the oracle or with one at the data's level."""
    from retemper.robustness import project

    assert project.oracle_level("ase:retemper.xtb:calculator(method='GFN1-xTB')", None) == "GFN1-xTB"
    assert project.oracle_level("ase:retemper.xtb:calculator()", None) == "GFN2-xTB"
    assert project.oracle_level("ase:planted:Pairwise()", None) is None
    assert project.oracle_level("ase:planted:Pairwise()", "Morse") == "Morse"
    told = {}
    for level in ("Morse", "mor se", "PBE", None):
        context = replace(here, oracle=planted(depth=0.8), oracle_level=level, target_level="Morse")
        content = suite.evaluate(
            context, ["short_range", "cost"], tmp_path / str(level), workers=1, cache=tmp_path / "c"
        )
        assert content["metrics"]["cost"]["against"] is None
        told[level] = content["metrics"]["short_range"]["against"]
        assert (told[level] or "score") in suite.table(content)
    assert told["Morse"] is None and told["mor se"] is None
    assert told["PBE"] == "against PBE, the data are at Morse"
    assert "not known" in told[None]
