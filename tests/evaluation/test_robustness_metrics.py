"""Every metric passes a sound calculator and finds the defect that was planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from metric_runs import crystals, labelled, planted
from scipy.stats import wasserstein_distance

from retemper.evaluation.robustness import holes, metrics, suite, units
from retemper.evaluation.robustness.context import Context, NotApplicableError
from retemper.evaluation.robustness.metrics import md, physics, short_range
from retemper.evaluation.robustness.result import Result
from retemper.models import evaluators
from retemper.simulation import radial_distribution
from retemper.simulation.dynamics import Trajectory
from retemper.simulation.relaxation import Minimum

PAIR = (13, 29)  # Al, Cu


def found(name: str, here: Context, cache: Path, **changes: Any) -> Result:
    here = replace(here, **changes)
    module = metrics.load(name)
    result: Result = module.measure(here, suite.compute(module.plan(here), workers=1, cache=cache))
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
    assert sound.value == 0.0 and sound.n == 24 and sound.groups == 3
    assert sound.high is not None and 25 < sound.high < 50  # of 24 independent ones it would be 14
    broken = found("rss", here, tmp_path, subject=planted(hole=300.0))
    assert broken.value is not None and broken.value > 20
    assert all(atoms.info["criteria"] for atoms in broken.failed)
    apart = units.paired_difference(broken.units, sound.units)
    assert apart.value == pytest.approx(broken.value) and apart.groups == 3


def test_rss_is_the_papers_and_rss_strict_counts_the_ratio_as_well(here: Context, tmp_path: Path) -> None:
    """The same relaxations: what is strict alone has a ratio between 0.5 and 0.6 and meets none of the four."""
    context = replace(here, subject=planted(hole=300.0))
    results = suite.compute(holes.plan(context), workers=1, cache=tmp_path)
    plain, strict = (metrics.load(name).measure(context, results) for name in ("rss", "rss_strict"))
    assert metrics.load("rss").INFO.title != metrics.load("rss_strict").INFO.title
    for result in (plain, strict):
        _, rows = result.tables["structures"]
        flags = [set(str(row[-1]).split()) for row in rows]
        counts = holes.PAPER if result is plain else holes.STRICT
        assert sum(unit.value > 0 for unit in result.units) == sum(bool(own & set(counts)) for own in flags)
    assert plain.value is not None and strict.value is not None and plain.value <= strict.value
    assert "ratio" not in plain.details["criteria"]


def test_a_ratio_between_the_limits_is_a_hole_of_the_strict_number_alone(here: Context) -> None:
    cell = np.diag([10.0, 10.0, 8.0])
    places = [np.array([[0.0, 0, 0], [r * 2.64, 0, 0]]) for r in (0.9, 0.92, 0.55)]
    relaxed = [Minimum(np.array([29, 29]), positions, cell, -6.0, 0.01, 1, True, "") for positions in places]
    shares = [
        holes.measure(here, {(0, 0.1): relaxed, (0, 50.0): relaxed}, criteria).value
        for criteria in (holes.PAPER, holes.STRICT)
    ]
    assert shares == pytest.approx([0.0, 100 / 3])


def test_rss_keeps_failures_of_the_calculator_apart(here: Context, tmp_path: Path) -> None:
    result = found("rss", here, tmp_path, subject=planted(limit=2.2))
    assert sum(result.details["reasons"].values()) > 0
    parts = [result.details[key] for key in ("0.1 GPa", "50 GPa")]
    assert sum(part["n"] + part["not_computed"] for part in parts) == 24
    assert any("did not converge" in reason for reason in result.details["reasons"])


def test_criteria_of_the_paper() -> None:
    """Ten sound structures and one that breaks each criterion."""

    def one(volume: float, energy: float, distance: float, reason: str = "") -> Minimum:
        cell = np.diag([10.0, 10.0, 2 * volume / 100])
        positions = np.array([[0.0, 0, 0], [distance, 0, 0]])
        return Minimum(np.array([29, 29]), positions, cell, 2 * energy, 0.01, 1, not reason, reason)

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
    flags = holes.judge([*sound, *bad.values()])
    assert not any(flags[:10])
    for name, own in zip(bad, flags[10:], strict=True):
        assert name in own
    assert holes.judge([*sound, one(400.0, np.nan, 2.5, "SCF not converged")])[-1] == []


# ------------------------------------------------------------------ dynamics and structure


def test_md_passes_a_sound_calculator_and_finds_an_explosion(here: Context, tmp_path: Path) -> None:
    sound = found("md", here, tmp_path)
    assert sound.value == 100.0 and sound.n == 6  # two replicas each: NVT, ramp, NPT
    assert not sound.failed
    broken = found("md", here, tmp_path, subject=planted(swirl=3.0))
    assert broken.value is not None and broken.value < 50 and broken.failed
    assert any("temperature" in why for why in broken.details["failures"]["nvt"])


def run_of(positions: np.ndarray, symbols: str, **changes: Any) -> Trajectory:
    n = len(positions)
    numbers = Atoms(symbols).numbers
    steady = Trajectory(
        numbers=numbers,
        pbc=np.zeros(3, bool),
        info={},
        time=np.arange(n) * 5.0,
        positions=positions,
        cells=np.zeros((n, 3, 3)),
        potential=np.zeros(n),
        kinetic=np.full(n, 0.0388 * len(numbers)),
        target=np.full(n, 300.0),
        stopped="",
        planned=5.0 * (n - 1),
    )
    return replace(steady, **changes)


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
    hot.kinetic[7] *= 6
    assert md.first_failure(hot)[0] == 7
    broken = run_of(steady, "OH2", potential=np.array([0.0] * 5 + [np.nan] * 5), stopped="not a number")
    assert md.first_failure(broken) == (5, "not a number")


def test_rdf_of_the_oracles_own_model_is_at_the_noise_floor(here: Context, tmp_path: Path) -> None:
    same = found("rdf", here, tmp_path, reference=[], oracle=planted())
    assert same.value == pytest.approx(0.0, abs=1e-12)  # the same dynamics
    other = found("rdf", here, tmp_path, reference=[], oracle=planted(depth=0.1))
    assert other.value is not None and other.value > other.details["noise_floor"] > 0
    assert set(other.details["pairs"]) == {"Al-Al", "Al-Cu", "Cu-Cu"}


def test_interval_of_a_distance_holds_the_truth() -> None:
    """Two normal distributions 0.3 A apart; replicas and groups of the reference scatter by 0.1 A as wholes."""
    rng = np.random.default_rng(0)
    rdf = metrics.load("rdf")
    r = radial_distribution.middles(8.0, 160)

    def sums(centre: float) -> tuple[np.ndarray, int]:
        places = centre + 0.1 * rng.normal() + 0.2 * rng.normal(size=200)
        return np.histogram(places, 160, (0, 8))[0], 20

    far = [rng.normal(centre, np.hypot(0.1, 0.2), 1_000_000) for centre in (4.3, 4.0)]
    truth = wasserstein_distance(*far, *(places**-2.0 for places in far))  # as radial distributions, over r^2
    held = 0
    for _ in range(60):
        ours = {f"replica {k}": sums(4.3) for k in range(4)}
        pair = rdf.Pair("O-O", ours, {str(k): sums(4.0) for k in range(6)}, r, 0.0)
        interval = rdf.estimate([pair]).interval(0.975)
        held += interval.low <= truth <= interval.high
    assert held >= 52  # binomial(60, 0.95) falls below 52 once in a hundred times


def test_a_complex_that_falls_apart_is_far_from_one_that_stays(here: Context, tmp_path: Path) -> None:
    """Na-Cl at 2.8 A in the reference. Gone beyond reach it costs 8 - 2.8 A, in half of the frames half."""
    rdf = metrics.load("rdf")
    frames = [Atoms("NaCl", [[0, 0, 0], [2.8, 0, 0]], info={"group": str(k // 5)}) for k in range(20)]
    context = replace(here, elements=(11, 17), frames=frames, reference=frames)

    def distance(*places: float) -> float:
        positions = np.array([[[0.0, 0, 0], [x, 0, 0]] for x in places])
        found = rdf.measure(context, {key: run_of(positions, "NaCl") for key in rdf.plan(context)})
        assert found.value is not None
        return float(found.value)

    assert distance(*[2.8] * 40) == pytest.approx(0.0, abs=1e-12)
    assert distance(*[3.0] * 40) == pytest.approx(0.2, abs=0.051)  # a bin is 0.05 A wide
    assert distance(*[20.0] * 40) == pytest.approx(8 - 2.8, abs=0.051)
    assert distance(*[2.8, 20.0] * 20) == pytest.approx((8 - 2.8) / 2, abs=0.051)


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


def test_free_atoms_are_said_but_are_no_law(here: Context, tmp_path: Path) -> None:
    """A label that a model was never given is no fault of its physics."""
    result = found("physics", here, tmp_path, free_atoms={13: -2.0, 29: 0.0})
    assert result.value == 100.0
    assert result.details["free_atoms"] == pytest.approx({"Al": 2.0, "Cu": 0.0})


@pytest.mark.parametrize("offset", [0.0, -50.0, -2000.0])
def test_physics_in_single_precision_is_within_rounding(here: Context, tmp_path: Path, offset: float) -> None:
    """The same laws with 24 bits, and with free atoms of thousands of eV; broken laws are still found."""
    single = {"single": 1.0, "offset": offset}
    result = found("physics", here, tmp_path, subject=planted(**single))
    assert result.value == 100.0, result.details
    for defect, check in (({"swirl": 0.3}, "conservation"), ({"field": 0.5}, "rotation")):
        broken = found("physics", here, tmp_path, subject=planted(**single, **defect))
        own = broken.details["checks"][check]
        assert own["holds"] < own["of"]
    if offset == -2000.0:  # finite differences of such energies say nothing: that is said, not judged
        assert any("forces against differences: rounding" in line for line in result.details["not_computed"])


def test_physics_of_gfn2_xtb(here: Context, tmp_path: Path) -> None:
    """Occupations at 300 K make two separated radicals another state than two atoms: no fault of the method."""
    pytest.importorskip("tblite")
    water = molecule("H2O")
    water.rattle(0.02, seed=1)
    xtb = evaluators.describe("ase:retemper.systems.xtb:calculator()")
    free = {1: -10.0, 8: -100.0}
    result = found("physics", replace(here, elements=(1, 8)), tmp_path, subject=xtb, frames=[water], free_atoms=free)
    assert result.value == 100.0, result.details
    assert result.details["checks"]["dissociation"]["of"] >= 1


def test_a_pair_that_feels_its_partner_at_any_distance_fails(here: Context, tmp_path: Path) -> None:
    broken = found("physics", here, tmp_path, subject=planted(field=0.01))
    assert broken.details["checks"]["dissociation"]["holds"] < 3


def test_drift_and_fluctuation_of_a_known_series() -> None:
    time = np.linspace(0, 2000, 4001)
    total = 1e-3 * (5.0 * time * 1e-3 + 0.3 * np.sqrt(2) * np.sin(time / 7))
    still = run_of(np.zeros((len(time), 4, 3)), "H4")
    run = replace(still, time=time, potential=4 * total, kinetic=0 * total)
    drift, fluctuation = physics.conservation(run)
    assert drift == pytest.approx(5.0, abs=0.02) and fluctuation == pytest.approx(0.3, rel=0.01)


# ------------------------------------------------------------------ retention, observables, cost


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
    from retemper.data.frames import write_frames

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
    from retemper.simulation.barriers import barrier

    fixed = [[0.0, 0, 0], [6.0, 0, 0], [3.0, 2.2, 0], [3.0, -2.2, 0]]
    ends = [Atoms("Cu4Al", [*fixed, [x, 0.0, 0.0]]) for x in (2.2, 3.8)]
    result = barrier(planted().open(), ends, images=3, steps=100)
    assert 0 <= result.barrier == pytest.approx(result.energies.max() - result.energies[0])
    np.testing.assert_allclose(result.energies, result.energies[::-1], atol=0.02)


def test_cost_measures_time_and_memory(here: Context, tmp_path: Path) -> None:
    result = found("cost", here, tmp_path)
    assert result.value is not None and 1 < result.value < 1e5
    assert 30 < result.details["memory_mb"] < 5000
    assert result.low is not None and result.high is not None and result.low <= result.value <= result.high
