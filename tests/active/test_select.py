"""Selectors, explorers and uncertainties: what each promises, on real structures and models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from retemper.active import plugins
from retemper.active.choose import within_trust
from retemper.active.estimate import Context as Trained
from retemper.active.explored import Context, fault
from retemper.active.pool import Pool, nearest
from retemper.config.settings import Plugin
from retemper.core.errors import RetemperError
from retemper.models import evaluators
from retemper.models.predict import predict
from retemper.simulation import engine

EMT = "ase:ase.calculators.emt:EMT()"


def pool(n: int = 60, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    return Pool(rng.random(n), rng.normal(size=(n, 3)), rng.normal(size=(10, 3)))


@pytest.mark.parametrize("name", plugins.names("select"))
def test_every_selector(name: str) -> None:
    """Distinct candidates, as many as asked for or there are, and the same again."""
    module, options = plugins.load("select", Plugin(name=name))
    picks = module.choose(pool(), 12, options, 3)
    assert len(set(picks)) == 12 and set(picks) <= set(range(60))
    assert picks == module.choose(pool(), 12, options, 3)
    assert sorted(module.choose(pool(5), 12, options, 3)) == [0, 1, 2, 3, 4]


def choose(name: str, given: Pool, number: int) -> list[int]:
    module, options = plugins.load("select", Plugin(name=name))
    return list(module.choose(given, number, options, 0))


def test_what_selectors_prefer() -> None:
    given = Pool(np.array([1.0, 5.0, 4.9, 0.1]), np.array([[0.0], [9.0], [9.1], [-5.0]]), np.array([[0.1]]))
    assert choose("uncertainty", given, 3) == [1, 2, 0]
    assert choose("farthest_point", given, 3) == [2, 3, 0] or choose("farthest_point", given, 3) == [2, 3, 1]
    assert choose("combined", given, 2)[0] == 1 or choose("combined", given, 2)[0] == 2
    assert set(choose("combined", given, 2)) != {1, 2}  # a twin of what is chosen is worth nothing any more


def test_lcmd_prefers_many_to_one_outlier() -> None:
    """Worked by hand: squared distances of the two clusters are 4 * 2^2 = 16 and 3^2 = 9, then 4 * 0 and 9."""
    many = [[2.0], [2.0], [2.0], [2.0]]
    given = Pool(np.ones(5), np.array([*many, [103.0]]), np.array([[0.0], [100.0]]))
    assert choose("farthest_point", given, 1) == [4]
    assert choose("lcmd", given, 2) == [0, 4]


def test_farthest_points_cover_better_than_chance() -> None:
    given = pool(400)
    radius = {}
    for name in ("farthest_point", "random"):
        picks = choose(name, given, 20)
        radius[name] = nearest(given.descriptors, np.vstack([given.labelled, given.descriptors[picks]])).max()
    assert radius["farthest_point"] < 0.7 * radius["random"]


def test_paths_end_where_trust_does() -> None:
    frames = [Atoms("H", info={"path": path}) for path in ("a", "a", "a", "b", "b")]
    expected = np.array([0.1, 3.0, 0.2, 0.1, 0.2])
    assert within_trust(frames, expected, 1.0).tolist() == [0, 1, 3, 4]
    assert within_trust(frames, expected, None).tolist() == [0, 1, 2, 3, 4]


def test_unknown_names_and_options() -> None:
    with pytest.raises(RetemperError, match="combined"):
        plugins.load("select", Plugin(name="combine"))
    with pytest.raises(RetemperError, match="amplitudes"):
        plugins.load("explore", Plugin(name="rattle", options={"amplitude": 1}))


# ------------------------------------------------------------------ explorers, with EMT as the model


def context(starts: list[Atoms], number: int) -> Context:
    subject = evaluators.describe(EMT)
    return Context(subject, starts, (29,), number, 0, lambda tasks: [engine.compute(task) for task in tasks])


def copper() -> list[Atoms]:
    starts = []
    for k in range(2):
        atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
        atoms.rattle(0.05, seed=k)
        atoms.info |= {"group": f"g{k}", "charge": 0, "source": f"s:{k}"}
        starts.append(atoms)
    return starts


SMALL = {
    "md": {"replicas": 2, "steps": 30},
    "push": {"paths": 4, "steps": 100},
    "rss": {"compositions": 2, "steps": 5},
    "normal_modes": {"starts": 1, "steps": 5},
}


@pytest.mark.parametrize("name", plugins.names("explore"))
def test_every_explorer(name: str) -> None:
    """About as many candidates as asked for, sound, each with its origin; the same again."""
    module, options = plugins.load("explore", Plugin(name=name, options=SMALL.get(name, {})))
    found = module.explore(context(copper(), 20), options)
    assert 15 <= len(found.frames) + len(found.unphysical) <= 25
    assert found.frames
    for atoms in found.frames:
        assert not fault(atoms)
        assert atoms.info["explorer"] == name and atoms.info["path"] and atoms.info["group"]
        assert set(atoms.numbers) == {29}
        assert (atoms.positions == atoms.positions.round(8)).all()
    if name == "rss":  # a random structure that the model does not know does not end the path of what it relaxes to
        assert len({atoms.info["path"] for atoms in found.frames}) == len(found.frames)
    else:
        assert {atoms.info["group"] for atoms in found.frames} <= {"g0", "g1"}
    again = module.explore(context(copper(), 20), options)
    assert all((a.positions == b.positions).all() for a, b in zip(found.frames, again.frames, strict=True))


@pytest.mark.parametrize("info", [{"charge": -1}, {"spin": 3}])
def test_random_search_makes_no_neutral_structures_from_ions(info: dict[str, int]) -> None:
    module, options = plugins.load("explore", Plugin(name="rss", options=SMALL["rss"]))
    starts = copper()
    starts[1].info |= info
    if "charge" in info:
        starts[1].info["spin"] = 2  # 29 electrons an atom, 8 atoms, one more
    with pytest.raises(RetemperError, match="take rss out"):
        module.explore(context(starts, 4), options)


def test_unphysical_frames_are_kept_apart() -> None:
    from retemper.active.explored import Explored

    found = Explored()
    close = Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 1.0]])
    assert not found.add(close) and found.add(Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.3]]))
    assert "0.38 times" in found.unphysical[0].info["reason"]  # 1.0 / (2 * 1.32)


@pytest.mark.parametrize("force", [1.0, -1.0])
def test_a_force_shifts_a_bond_by_its_stiffness(force: float) -> None:
    """N2 in EMT, cold: the mean length under a constant force is where the energy's own slope balances it."""
    from scipy.optimize import brentq

    from retemper.active.explore.push import driven

    evaluator = evaluators.describe(EMT).open()

    def slope(length: float, step: float = 1e-4) -> float:
        ends = [Atoms("N2", positions=[[0, 0, 0], [0, 0, length + d]]) for d in (-step, step)]
        low, high = evaluator(ends).energy
        return float(high - low) / (2 * step)

    start = Atoms("N2", positions=[[0, 0, 0], [0, 0, brentq(slope, 0.9, 1.2)]])
    run = driven(
        evaluator, start, first=0, second=1, force=force, steps=2000, timestep=0.5, temperature=1.0, stride=5, seed=0
    )
    lengths = np.linalg.norm(run.positions[:, 1] - run.positions[:, 0], axis=1)[200:]
    expected = brentq(lambda length: slope(length) + force, 0.8, 1.6)
    assert (expected < start.get_distance(0, 1)) == (force > 0)
    assert lengths.mean() == pytest.approx(expected, abs=0.1 * abs(expected - start.get_distance(0, 1)))
    centre = run.positions.mean(axis=1)
    assert np.abs(centre - centre[0]).max() < 1.0  # diffusion; a net force of 1 eV/A would move it by 34 A


def test_pairs_are_drawn_by_kind() -> None:
    """Water: H-H is a neighbour without a bond, O-H is bonded; both kinds come up about equally often."""
    from retemper.active.explore.push import pair

    rng = np.random.default_rng(0)
    drawn = [pair(molecule("H2O"), rng) for _ in range(200)]
    bonded = [found for found in drawn if found is not None and found[2]]
    assert len(drawn) == 200 and 70 < len(bonded) < 130
    assert all(0 in found[:2] for found in bonded)
    assert pair(Atoms("H"), rng) is None


def test_normal_modes_of_a_spring() -> None:
    """N2 in EMT: the stretch is the one mode; its stiffness is that of a finite difference."""
    from retemper.active.explore.normal_modes import displaced, normal_modes

    evaluator = evaluators.describe(EMT).open()
    atoms = Atoms("N2", positions=[[0, 0, 0], [0, 0, 1.0]])
    stiffness, _ = normal_modes(evaluator, atoms)
    energies = []
    for d in (-0.01, 0.0, 0.01):
        moved = atoms.copy()
        moved.positions[1, 2] += d
        energies.append(evaluator([moved]).energy[0])
    k = (energies[0] - 2 * energies[1] + energies[2]) / 1e-4
    mass = atoms.get_masses()[0] / 2
    assert stiffness[-1] == pytest.approx(k / mass, rel=1e-2)
    made = displaced(evaluator, atoms, temperatures=[300.0] * 400, steps=100, seed=0)
    lengths = np.array([np.linalg.norm(p[1] - p[0]) for p in made])
    from ase import units

    centre = lengths.mean()
    at = Atoms("N2", positions=[[0, 0, 0], [0, 0, centre]])
    stiff = normal_modes(evaluator, at)[0][-1] * mass
    assert lengths.std() == pytest.approx(np.sqrt(units.kB * 300 / stiff), rel=0.15)  # equipartition


# ------------------------------------------------------------------ uncertainties


def waters(number: int, amplitude: float, seed: int) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(number):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(0, amplitude, (3, 3))
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("name", plugins.names("uncertainty"))
def test_every_uncertainty(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """A number above zero an atom, whatever the batch, turned or not; the same twice."""
    from conftest import build_tiny

    module, options = plugins.load("uncertainty", Plugin(name=name))
    other = build_tiny(tmp_path / "other.model", ["Default"], seed=1)
    estimate = module.fit(Trained([tiny_model, other], "Default", "cpu", waters(6, 0.05, 0)), options)
    frames = waters(3, 0.1, 1)
    found = estimate(frames)
    assert [u.shape for u in found] == [(3,)] * 3
    assert all((u > 0).all() and np.isfinite(u).all() for u in found)
    turned = frames[1].copy()
    turned.rotate(50, (1, 2, 3))
    np.testing.assert_allclose(estimate([turned])[0], found[1], rtol=1e-3)


@pytest.mark.parametrize("name", ["distance", "llpr"])
def test_what_is_far_from_the_training_set_is_less_sure(name: str, tiny_model: Path) -> None:
    module, options = plugins.load("uncertainty", Plugin(name=name))
    train = waters(20, 0.03, 0)
    estimate = module.fit(Trained([tiny_model], "Default", "cpu", train), options)
    near = np.mean([u.max() for u in estimate(waters(10, 0.03, 1))])
    far = np.mean([u.max() for u in estimate(waters(10, 0.3, 1))])
    assert far > 2 * near
    if name == "distance":
        assert np.isinf(estimate([molecule("CH4")])[0]).any()  # carbon was never seen
        assert estimate(train[:1])[0].min() < near


def test_a_committee_of_one_is_refused(tiny_model: Path) -> None:
    module, options = plugins.load("uncertainty", Plugin(name="committee"))
    with pytest.raises(RetemperError, match="two training seeds"):
        module.fit(Trained([tiny_model], "Default", "cpu", waters(2, 0.1, 0)), options)


def test_the_committee_is_the_standard_deviation(tiny_model: Path, tmp_path: Path) -> None:
    from conftest import build_tiny

    models = [tiny_model, build_tiny(tmp_path / "b.model", ["Default"], seed=5)]
    module, options = plugins.load("uncertainty", Plugin(name="committee"))
    frames = waters(2, 0.1, 0)
    found = module.fit(Trained(models, "Default", "cpu", frames), options)(frames)
    forces = [predict(model, frames, backend="torch").forces[1] for model in models]
    np.testing.assert_allclose(found[1], np.abs(forces[0] - forces[1]).__pow__(2).mean(axis=1) ** 0.5 / np.sqrt(2))


def test_the_energy_is_linear_in_the_last_layer(tiny_model: Path) -> None:
    """Least squares on more structures than features leaves nothing."""
    from retemper.models import last_layer
    from retemper.models.mace import atomic_energies

    frames = waters(60, 0.15, 0)
    sums = np.zeros((60, 0))
    for k, features in last_layer.features(tiny_model, frames, "Default", "cpu"):
        sums = sums if sums.size else np.zeros((60, features.shape[1]))
        sums[k] = features.sum(axis=0)
    e0 = atomic_energies(tiny_model)
    energy = predict(tiny_model, frames, backend="torch").energy - (e0[8] + 2 * e0[1])
    rest = energy - sums @ np.linalg.lstsq(sums, energy, rcond=1e-14)[0]
    assert sums.shape[1] == 8 + 8  # scalars of the first layer, hidden layer of the last readout
    assert np.abs(rest).max() < 1e-6 * np.ptp(energy)
