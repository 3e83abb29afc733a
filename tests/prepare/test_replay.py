"""Choosing replay structures: what may be chosen, disjoint groups, audits, the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import prepared
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from retemper.config.project import Project
from retemper.config.settings import Replay
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.data import selection
from retemper.data.frames import ENERGY, FORCES, read_frames, structure_hash, write_frames
from retemper.models import predict
from retemper.prepare import overlap, pseudolabel, replay, replay_choice
from retemper.records.replay import ReplayManifest


def labelled(atoms: Atoms, group: str, seed: int, config_type: str = "molecule") -> Atoms:
    atoms.rattle(0.05, seed=seed)
    atoms.info |= {ENERGY: -1.0 * len(atoms), "group": group, "config_type": config_type}
    atoms.arrays[FORCES] = np.zeros((len(atoms), 3))
    return atoms


@pytest.fixture(scope="module")
def pool() -> list[Atoms]:
    """12 groups of 4 frames, and frames that may not be chosen: a free atom, a repeat, copper."""
    frames = []
    for name in ("H2O", "CH4", "NH3", "HCl", "CH3Cl", "C2H6", "N2", "CO2"):
        frames += [labelled(molecule(name), name, seed) for seed in range(4)]
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
    choice = replay_choice.choose(pool, settings, model=tiny_model, target=target, progress=False)
    again = replay_choice.choose(pool, settings, model=tiny_model, target=target, progress=False)
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
    choice = replay_choice.choose(pool, settings, model=tiny_model, progress=False)
    candidates = list(range(1, 49))
    held = replay_choice._held_out([replay_choice.group_of(pool[i]) for i in candidates], settings)
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
    choice = replay_choice.choose(pool, settings, model=tiny_model, target=target, progress=False)
    tiers = selection.element_match([pool[i] for i in choice.train], ["H", "O", "Cl"])
    assert set(tiers.tolist()) <= {1, 2}
    offered = [i for i in range(1, 49) if pool[i].info["group"] in ("H2O", "HCl")]
    held = {pool[i].info["group"] for i in choice.valid}
    within = [i for i in offered if pool[i].info["group"] not in held]
    assert set(within) <= set(choice.train.tolist()) or len(held & {"H2O", "HCl"}) == 2
    assert choice.left_out["shares no element with the target"] == 4


def test_too_few(pool: list[Atoms], tiny_model: Path) -> None:
    with pytest.raises(RetemperError, match="too few structures for select: random"):
        replay_choice.choose(pool, Replay(number=60, valid=4, select="random"), model=tiny_model, progress=False)
    one_group = [labelled(molecule("H2O"), "all", seed) for seed in range(20)]
    with pytest.raises(RetemperError, match="groups cannot be divided"):
        replay_choice.choose(one_group, Replay(number=10, valid=4, select="random"), model=tiny_model, progress=False)


def test_a_pool_without_labels(pool: list[Atoms], tiny_model: Path) -> None:
    bare = [atoms.copy() for atoms in pool]
    del bare[4].arrays[FORCES]
    with pytest.raises(RetemperError, match=r"frame 4 .* has no labels"):
        replay_choice.choose(bare, Replay(number=10, valid=4, select="random"), model=tiny_model, progress=False)


def project(
    root: Path, model: Path, frames: list[Atoms] | None, retention: list[Atoms], target: list[Atoms], **more: Any
) -> Project:
    """Replays ten structures of `frames` at random."""
    options: dict[str, Any] = {"number": 10, "valid": 4, "select": "random", **more}
    evaluate = {}
    if frames is not None:
        write_frames(root / "pool.extxyz", frames)
        write_frames(root / "retention.extxyz", retention)
        options["pool"], evaluate["retention"] = "pool.extxyz", "retention.extxyz"
    for name in ("train", "valid", "test"):
        write_frames(root / f"runs/dataset/{name}.extxyz", target)
    return prepared.project(root, model, replay=options, evaluate=evaluate)


def test_the_files(pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path) -> None:
    made = project(tmp_path, tiny_model, pool, target, target)
    manifest = replay.run(made)
    assert manifest == ReplayManifest.read(made.replay / "manifest.json")
    assert manifest.sha256 == sha256(tmp_path / "pool.extxyz")
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


def test_a_foundation_without_a_pool(
    target: list[Atoms], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = project(tmp_path, tiny_model, None, [], target)
    assert replay.run(made).train.n_frames == 0
    assert "has no pool" in capsys.readouterr().out
    assert (made.replay / "train.extxyz").read_bytes() == b""
    assert ReplayManifest.read(made.replay / "manifest.json").source is None


def test_structures_without_labels_get_the_foundations(
    pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path
) -> None:
    bare = [atoms.copy() for atoms in pool]
    for atoms in bare:
        del atoms.info[ENERGY], atoms.arrays[FORCES]
    made = project(tmp_path, tiny_model, bare, target, target)
    manifest = replay.run(made)
    assert (manifest.labels, manifest.agreement) == ("foundation", None)
    frames = read_frames(made.replay / "train.extxyz")
    predicted = predict.predict(tiny_model, frames, backend="torch")
    np.testing.assert_allclose([atoms.info[ENERGY] for atoms in frames], predicted.energy, atol=1e-6)
    labelled = pseudolabel.run(made).train
    assert labelled.n_frames == 10 and labelled.rmse_to_original.force is None


def test_generated_structures_are_a_pool(target: list[Atoms], tiny_model: Path, tmp_path: Path) -> None:
    made = project(tmp_path, tiny_model, None, [], target, pool="generated")
    manifest = replay.run(made)
    assert (manifest.source, manifest.sha256, manifest.labels, manifest.pool) == ("generated", None, "foundation", 28)
    assert (manifest.train.n_frames, manifest.valid.n_frames) == (10, 4)
    train, valid = (read_frames(made.replay / f"{name}.extxyz") for name in ("train", "valid"))
    assert not {a.info["group"] for a in train} & {a.info["group"] for a in valid}


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
    choice = replay_choice.choose(
        pool, Replay(number=10, valid=4, select="random"), model=tiny_model, target=near, progress=False
    )
    assert choice.left_out["in the target's data"] == 4
    assert not {1, 2, 3, 4} & {*choice.train.tolist(), *choice.valid.tolist()}
