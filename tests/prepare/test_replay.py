"""Choosing replay structures: what may be chosen, disjoint groups, audits, the files."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import prepared
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from retemper.config import pretraining_data
from retemper.config.project import Project
from retemper.config.settings import Replay
from retemper.core.errors import RetemperError
from retemper.core.files import read_json, sha256
from retemper.data import selection
from retemper.data.frames import (
    ENERGY,
    FORCES,
    LABEL_SOURCE,
    STRESS,
    read_frames,
    structure_hash,
    write_frames,
)
from retemper.models import predict
from retemper.prepare import overlap, pseudolabel, replay, replay_choice, retention_file
from retemper.prepare.replay_choice import Choice
from retemper.records.replay import KeptApart, ReplayManifest


def labelled(atoms: Atoms, group: str, seed: int, config_type: str = "molecule") -> Atoms:
    atoms.rattle(0.05, seed=seed)
    atoms.info |= {ENERGY: -1.0 * len(atoms), "group": group, "config_type": config_type}
    atoms.arrays[FORCES] = np.zeros((len(atoms), 3))
    return atoms


def choose(pool: list[Atoms], settings: Replay, model: Path, target: Sequence[Atoms] = ()) -> Choice:
    offered = replay_choice.candidates([pool], model, target)
    return replay_choice.choose(offered, settings, model=model, target=target, progress=False)


@pytest.fixture(scope="module")
def pool() -> list[Atoms]:
    """12 groups of 4 frames, and frames that may not be chosen: a free atom, a repeat, copper."""
    frames = []
    for name in ("H2O", "CH4", "NH3", "HCl", "CH3Cl", "C2H6", "N2", "CO2"):
        frames += [labelled(molecule(name), name, seed) for seed in range(10, 14)]
    for a in (5.0, 5.4, 5.8, 6.2):
        crystal = [bulk("NaCl", "rocksalt", a=a) for _ in range(4)]
        frames += [labelled(atoms, f"NaCl {a}", seed, "crystal") for seed, atoms in enumerate(crystal)]
    return [labelled(Atoms("O"), "atoms", 0), *frames, frames[5].copy(), labelled(bulk("Cu"), "Cu", 0)]


@pytest.fixture(scope="module")
def target() -> list[Atoms]:
    return [labelled(molecule("H2O"), "target", 50), labelled(molecule("HCl"), "target", 51)]


@pytest.mark.parametrize("select", ["farthest-point", "random", "elements"])
def test_choice(select: str, pool: list[Atoms], target: list[Atoms], tiny_model: Path) -> None:
    settings = Replay.model_validate({"number": 12, "valid": 4, "select": select, "seed": 3})
    choice = choose(pool, settings, tiny_model, target)
    again = choose(pool, settings, tiny_model, target)
    np.testing.assert_array_equal(choice.train, again.train)
    np.testing.assert_array_equal(choice.valid, again.valid)
    assert len(set(choice.train.tolist())) == 12 and len(set(choice.valid.tolist())) == 4
    train, valid = ([pool[i] for i in indices] for indices in (choice.train, choice.valid))
    assert not {a.info["group"] for a in train} & {a.info["group"] for a in valid}
    assert not {structure_hash(a) for a in train} & {structure_hash(a) for a in valid}
    assert {"Cu", "atoms"}.isdisjoint(a.info["group"] for a in train + valid)
    left_out = choice.left_out
    assert (left_out["isolated atom"], left_out["repeated"], left_out["element unknown to the foundation"]) == (1, 1, 1)


def test_farthest_point_uses_the_foundations_descriptors(pool: list[Atoms], tiny_model: Path) -> None:
    """The choice covers the frames on offer as well as the greedy choice on MACE's own descriptors."""
    from mace.calculators import MACECalculator

    settings = Replay(number=10, valid=4, select="farthest-point")
    choice = choose(pool, settings, tiny_model)
    candidates = list(range(1, 49))
    groups = [replay_choice.group_of(pool[i]) for i in candidates]
    held = replay_choice._held_out(groups, np.zeros(48, dtype=int), replay_choice.parts_of(settings), settings)
    offered = [i for i, is_held in zip(candidates, held, strict=True) if not is_held]
    assert set(choice.train.tolist()) <= set(offered)
    calculator = MACECalculator(model_paths=str(tiny_model), device="cpu", default_dtype="float64")
    points = np.array([calculator.get_descriptors(pool[i]).mean(axis=0) for i in offered])
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    greedy = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    while len(greedy) < 10:
        greedy.append(int(distance[greedy].min(axis=0).argmax()))
    own = [offered.index(i) for i in choice.train]
    best = distance[greedy].min(axis=0).max()
    assert distance[own].min(axis=0).max() == pytest.approx(best, rel=1e-2)
    assert choice.coverage.radius == pytest.approx(best, rel=1e-2)
    assert choice.coverage.radius_random > choice.coverage.radius


def test_elements_prefers_structures_within_the_targets_elements(
    pool: list[Atoms], target: list[Atoms], tiny_model: Path
) -> None:
    """H, O, Cl: water and HCl (8 frames) are within; N2 and C-only structures share nothing."""
    settings = Replay(number=8, valid=2, select="elements")
    choice = choose(pool, settings, tiny_model, target)
    tiers = selection.element_match([pool[i] for i in choice.train], ["H", "O", "Cl"])
    assert set(tiers.tolist()) <= {1, 2}
    offered = [i for i in range(1, 49) if pool[i].info["group"] in ("H2O", "HCl")]
    held = {pool[i].info["group"] for i in choice.valid}
    within = [i for i in offered if pool[i].info["group"] not in held]
    assert set(within) <= set(choice.train.tolist()) or len(held & {"H2O", "HCl"}) == 2
    assert choice.left_out["shares no element with the target"] == 4


def test_too_few(pool: list[Atoms], tiny_model: Path) -> None:
    with pytest.raises(RetemperError, match="Too few structures"):
        choose(pool, Replay(number=60, valid=4, select="random"), tiny_model)
    one_group = [labelled(molecule("H2O"), "all", seed) for seed in range(20)]
    with pytest.raises(RetemperError, match="cannot be divided"):
        choose(one_group, Replay(number=10, valid=4, select="random"), tiny_model)


def project(
    root: Path, model: Path, frames: list[Atoms] | None, retention: list[Atoms], target: list[Atoms], **more: Any
) -> Project:
    """Replays ten structures of `frames` at random."""
    options: dict[str, Any] = {"number": 10, "valid": 4, "select": "random", **more}
    evaluate = {}
    if frames is not None:
        write_frames(root / "pool.extxyz", frames)
        options["pools"] = ["pool.extxyz"]
        if retention:
            write_frames(root / "retention.extxyz", retention)
            evaluate["retention"] = "retention.extxyz"
    for name in ("train", "valid", "test"):
        write_frames(root / f"runs/dataset/{name}.extxyz", target)
    return prepared.project(root, model, replay=options, evaluate=evaluate)


def test_the_files(pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path) -> None:
    made = project(tmp_path, tiny_model, pool, target, target)
    manifest = replay.run(made)
    assert manifest == ReplayManifest.read(made.replay / "manifest.json")
    assert read_json(made.replay / "retention.json")["n_frames"] == 0
    assert retention_file.path(made) == made.root / "retention.extxyz"
    assert manifest.pools[0].sha256 == sha256(tmp_path / "pool.extxyz")
    originals = {structure_hash(a): a for a in pool}
    for name, part, number in (("train", manifest.train, 10), ("valid", manifest.valid, 4)):
        frames = read_frames(made.replay / f"{name}.extxyz")
        assert len(frames) == part.n_frames == number
        assert sum(part.config_types.values()) == number
        for atoms in frames:
            assert atoms.info[ENERGY] == originals[structure_hash(atoms)].info[ENERGY]


def test_a_retention_structure_in_the_replay_set_is_an_error(
    pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path
) -> None:
    made = project(tmp_path, tiny_model, pool, pool[1:49], target)
    with pytest.raises(RetemperError, match="the replay set and the retention set share"):
        replay.run(made)
    assert not made.replay.exists()


def test_structures_without_labels_get_the_foundations(
    pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path
) -> None:
    bare = [atoms.copy() for atoms in pool]
    for atoms in bare:
        del atoms.info[ENERGY], atoms.arrays[FORCES]
    made = project(tmp_path, tiny_model, bare, target, target)
    manifest = replay.run(made)
    assert (manifest.labels, manifest.pools[0].agreement) == ("foundation", None)
    frames = read_frames(made.replay / "train.extxyz")
    predicted = predict.predict(tiny_model, frames, backend="torch")
    np.testing.assert_allclose([atoms.info[ENERGY] for atoms in frames], predicted.energy, atol=1e-6)
    labelled = pseudolabel.run(made).train
    assert labelled.n_frames == 10 and labelled.rmse_to_original.force is None


def test_a_foundation_without_a_pool_gets_a_generated_one(
    target: list[Atoms], tiny_model: Path, tmp_path: Path
) -> None:
    """Nothing is named: structures to replay and others to measure the drift on, both with the foundation's labels."""
    made = project(tmp_path, tiny_model, None, [], target)
    manifest = replay.run(made)
    (only,) = manifest.pools
    assert (only.name, only.sha256, only.labels, only.structures) == ("generated", None, "foundation", 28)
    assert (manifest.train.n_frames, manifest.valid.n_frames, manifest.labels) == (10, 4, "foundation")
    assert manifest.retention == KeptApart(source="generated", labels="foundation", structures=5)
    sets = {name: read_frames(made.replay / f"{name}.extxyz") for name in ("train", "valid", "retention")}
    for one, other in itertools.combinations(sets.values(), 2):
        assert not {a.info["group"] for a in one} & {a.info["group"] for a in other}
    assert retention_file.path(made) == made.replay / "retention.extxyz"
    assert read_json(made.replay / "retention.json")["n_frames"] == 5  # what DVC compares
    assert retention_file.labelled_by_foundation(sets["retention"])
    predicted = predict.predict(tiny_model, sets["retention"], backend="torch")
    np.testing.assert_allclose([a.info[ENERGY] for a in sets["retention"]], predicted.energy, atol=1e-6)


def labelled_by(model: Path, pool: list[Atoms], offset: float = 0.0) -> list[Atoms]:
    """Structures of `pool` that the model knows with its labels, and `offset` (eV) an atom."""
    frames = [atoms.copy() for atoms in pool[1:49]]
    predicted = predict.predict(model, frames, backend="torch")
    for k, atoms in enumerate(frames):
        atoms.info[ENERGY] = float(predicted.energy[k]) + offset * len(atoms)
        atoms.arrays[FORCES] = predicted.forces[k]
    return frames


def test_groups_of_a_labelled_pool_are_kept_apart(
    pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path
) -> None:
    """No retention set is named: 8 of 48 structures, two whole groups, with their own labels."""
    made = project(tmp_path, tiny_model, labelled_by(tiny_model, pool), [], target)
    manifest = replay.run(made)
    assert manifest.labels == "original"
    assert manifest.retention == KeptApart(source="pool.extxyz", labels="original", structures=8)
    sets = {name: read_frames(made.replay / f"{name}.extxyz") for name in ("train", "valid", "retention")}
    groups = {name: {a.info["group"] for a in frames} for name, frames in sets.items()}
    assert len(groups["retention"]) == 2 and not groups["retention"] & (groups["train"] | groups["valid"])
    assert not retention_file.labelled_by_foundation(sets["retention"])
    again = replay.run(project(tmp_path, tiny_model, labelled_by(tiny_model, pool), [], target, seed=7))
    assert again.train.labels_hash != manifest.train.labels_hash
    assert read_frames(made.replay / "retention.extxyz") == sets["retention"]  # whatever replay.seed is


def test_labels_of_another_level_measure_no_retention(
    pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path
) -> None:
    made = project(tmp_path, tiny_model, labelled_by(tiny_model, pool, offset=2.0), [], target)
    manifest = replay.run(made)
    assert manifest.retention == KeptApart(source="pool.extxyz", labels="foundation", structures=8)


def test_several_pools_with_shares_and_keys(
    pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path
) -> None:
    """Labelled molecules under other keys, unlabelled crystals in a trajectory of ASE, and generated structures."""
    molecules = labelled_by(tiny_model, pool)[:32]
    for atoms in molecules:
        atoms.info["E"], atoms.arrays["F"] = atoms.info.pop(ENERGY), atoms.arrays.pop(FORCES)
    crystals = [
        Atoms(a.numbers, a.positions, cell=a.cell, pbc=True, info={"name": a.info["group"]}) for a in pool[33:49]
    ]
    made = project(tmp_path, tiny_model, None, [], target)
    write(tmp_path / "crystals.traj", crystals)
    write_frames(tmp_path / "molecules.extxyz", molecules)
    pools = [
        {"pool": "molecules.extxyz", "share": 0.6, "keys": {"energy": "E", "forces": "F"}},
        {"pool": "crystals.traj", "share": 0.3},
        "default",
    ]
    replayed = {"number": 10, "valid": 4, "select": "farthest-point", "pools": pools}
    made = prepared.project(tmp_path, tiny_model, replay=replayed)
    manifest = replay.run(made)
    assert [(p.train, p.valid) for p in manifest.pools] == [(6, 2), (3, 1), (1, 1)]
    assert [p.labels for p in manifest.pools] == ["original", "foundation", "foundation"]
    assert manifest.labels == "foundation" and manifest.retention.labels == "original"
    assert manifest.pools[0].agreement.force_rmse < 1
    frames = read_frames(made.replay / "train.extxyz")
    assert sum(LABEL_SOURCE in atoms.info for atoms in frames) == 4
    assert all(ENERGY in atoms.info and FORCES in atoms.arrays for atoms in frames)


def test_keys_that_a_pool_lacks(pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path) -> None:
    made = project(tmp_path, tiny_model, pool, [], target)
    keys = {"energy": "E", "forces": FORCES}
    replayed = {"number": 10, "valid": 4, "select": "random", "pools": [{"pool": "pool.extxyz", "keys": keys}]}
    with pytest.raises(RetemperError, match="'E'") as caught:
        replay.run(prepared.project(tmp_path, tiny_model, replay=replayed))
    assert ENERGY in str(caught.value.got) and not made.replay.exists()


def test_a_pool_that_is_labelled_in_part(
    pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path
) -> None:
    """Few frames without labels are left out; many are an error."""
    frames = labelled_by(tiny_model, pool)
    for number in (2, 5):
        for atoms in frames[:number]:
            atoms.arrays.pop(FORCES, None)
        made = project(tmp_path, tiny_model, frames, target, target)
        if number == 2:
            assert replay.run(made).pools[0].structures == 46
    with pytest.raises(RetemperError, match="no forces"):
        replay.run(made)


def test_what_the_foundation_finds_absurd_is_not_replayed(
    pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path
) -> None:
    """By its stress: labels that no data set may have are not made either, of a file or generated."""
    bare = [Atoms(a.numbers, a.positions, cell=a.cell, pbc=a.pbc, info={"group": a.info["group"]}) for a in pool[1:49]]
    stress = np.abs(predict.predict(tiny_model, bare[32:], backend="torch").stress).reshape(16, -1).max(axis=1)
    limit = float(np.sort(stress)[-3:-1].mean())
    write_frames(tmp_path / "pool.extxyz", bare)
    for name in ("train", "valid", "test"):
        write_frames(tmp_path / f"runs/dataset/{name}.extxyz", target)
    replayed = {"number": 10, "valid": 4, "select": "random", "pools": ["pool.extxyz", "generated"]}
    dataset = {"files": ["some.extxyz"], "level_of_theory": "test", "max_stress": limit}
    made = prepared.project(tmp_path, tiny_model, replay=replayed, dataset=dataset)
    assert replay.run(made).pools[0].structures == 46
    for name in ("train", "valid", "retention"):
        labels = [atoms.info[STRESS] for atoms in read_frames(made.replay / f"{name}.extxyz") if STRESS in atoms.info]
        assert np.abs(labels).max(initial=0) <= limit * (1 + 1e-5)


def test_one_pool_twice(tiny_model: Path, tmp_path: Path) -> None:
    made = prepared.project(tmp_path, tiny_model, replay={"pools": ["default", "generated"]})
    with pytest.raises(RetemperError, match="generated twice"):
        pretraining_data.pools(made.settings, made.foundation)


def test_generated_structures_that_are_held_out_are_not_replayed(pool: list[Atoms]) -> None:
    """Prototypes are the same whoever makes them: those of the retention set are left out."""
    held_out = [pool[3].copy(), pool[40].copy()]
    left = overlap.apart(pool[1:48], held_out, 1e-3)
    assert len(left) == 45
    overlap.audit(left, held_out, groups=False)


@pytest.mark.parametrize("moved", [5e-6, 2e-4])
def test_moved_retention_structures_and_their_groups_are_leaks(pool: list[Atoms], moved: float) -> None:
    """Near copies of twenty replay structures are found by distance; other frames of their groups by name."""
    chosen, held_out = pool[1:29], [atoms.copy() for atoms in pool[1:21]]
    for k, atoms in enumerate(held_out):
        atoms.rattle(moved, seed=100 + k)
        atoms.info["group"] = "elsewhere"
    with pytest.raises(RetemperError, match="share 20 structure"):
        overlap.audit(chosen, held_out)
    overlap.audit(chosen, pool[33:49])
    with pytest.raises(RetemperError, match="shared group"):
        overlap.audit(pool[1:3], pool[3:5])
    overlap.audit(pool[1:3], pool[3:5], groups=False)


def test_charge_does_not_hide_a_leak(pool: list[Atoms]) -> None:
    ion = pool[1].copy()
    ion.info |= {"total_charge": 1.0, "total_spin": 2, "group": "ions"}
    with pytest.raises(RetemperError, match="share 1 structure"):
        overlap.audit(pool[1:9], [ion])


def test_near_copies_of_the_target_are_not_replayed(pool: list[Atoms], tiny_model: Path) -> None:
    near = [atoms.copy() for atoms in pool[1:5]]
    for k, atoms in enumerate(near):
        atoms.rattle(1e-5, seed=200 + k)
    choice = choose(pool, Replay(number=10, valid=4, select="random"), tiny_model, near)
    assert choice.left_out["in the target's data"] == 4
    assert not {1, 2, 3, 4} & {*choice.train.tolist(), *choice.valid.tolist()}
