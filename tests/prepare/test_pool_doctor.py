"""Planted faults of pools are found, with their numbers; sound pools have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import prepared
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from retemper.core.errors import RetemperError
from retemper.data.frames import ENERGY, FORCES, STRESS, write_frames
from retemper.models import predict
from retemper.prepare import pool_doctor, replay
from retemper.records.replay import PoolFinding, ReplayManifest


def labelled(model: Path, frames: list[Atoms]) -> list[Atoms]:
    """`frames` with the model's labels."""
    predicted = predict.predict(model, frames, backend="torch")
    for k, atoms in enumerate(frames):
        atoms.info[ENERGY], atoms.arrays[FORCES] = float(predicted.energy[k]), predicted.forces[k]
        if atoms.pbc.all():
            atoms.info[STRESS] = np.ravel(predicted.stress[k])
    return frames


def rattled(atoms: Atoms, group: str, number: int, seed: int) -> list[Atoms]:
    frames = []
    for k in range(number):
        copy = atoms.copy()
        copy.rattle(0.08, seed=seed + k)
        copy.info = {"group": group}
        frames.append(copy)
    return frames


@pytest.fixture(scope="module")
def pool(tiny_model: Path) -> list[Atoms]:
    """Eight groups of six structures, half of them crystals."""
    cells = [bulk("NaCl", "rocksalt", a=a) for a in (5.2, 5.6, 6.0, 6.4)]
    every = [*map(molecule, ("CH4", "CH3Cl", "CO2", "C2H6")), *cells]
    frames = [atoms for k, one in enumerate(every) for atoms in rattled(one, f"pool {k}", 6, 100 * k)]
    return labelled(tiny_model, frames)


@pytest.fixture(scope="module")
def target(tiny_model: Path) -> list[Atoms]:
    return labelled(tiny_model, rattled(molecule("CH3OH"), "target", 4, 5000))


def run(root: Path, model: Path, pools: list[list[Atoms]], target: list[Atoms]) -> ReplayManifest:
    for name in ("train", "valid", "test"):
        write_frames(root / f"runs/dataset/{name}.extxyz", target)
    for k, frames in enumerate(pools):
        write_frames(root / f"pool{k}.extxyz", frames)
    names = [f"pool{k}.extxyz" for k in range(len(pools))]
    return replay.run(
        prepared.project(root, model, replay={"number": 12, "valid": 4, "select": "random", "pools": names})
    )


def kinds(findings: list[PoolFinding]) -> dict[str, tuple[int, int]]:
    return {finding.kind: (finding.number, finding.of) for finding in findings}


def test_a_sound_pool(pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path) -> None:
    manifest = run(tmp_path, tiny_model, [pool], target)
    assert manifest.findings == [] and not any(manifest.left_out.values())


def test_faults_of_labels(pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path) -> None:
    """In a second pool: another level, crystals without stress, structures of the first pool with other energies."""
    second = [atoms.copy() for atoms in [*pool[:10], *pool[24:30]]]
    for k, atoms in enumerate(second):
        atoms.info[ENERGY] += 0.4 * len(atoms)
        atoms.info["group"] = f"second {k // 2}"
        if k >= 3:
            atoms.rattle(0.05, seed=k)
    for atoms in second[10:14]:
        del atoms.info[STRESS]
    manifest = run(tmp_path, tiny_model, [pool, second], target)
    assert kinds(manifest.findings) == {"level of theory": (16, 16), "no stress": (4, 6), "labels differ": (3, 3)}
    assert manifest.left_out["repeats another pool"] == 3 and manifest.left_out["repeated"] == 0
    assert manifest.retention is not None and manifest.retention.source == "pool0.extxyz"
    agreement = manifest.pools[1].agreement
    assert agreement is not None and agreement.energy == pytest.approx(400, rel=0.1)


def test_copies_at_a_distance_are_left_out(
    pool: list[Atoms], target: list[Atoms], tiny_model: Path, tmp_path: Path
) -> None:
    """Six of a pool's own structures and two of the target's, moved by 0.3 mA."""
    copies = [atoms.copy() for atoms in [*pool[:6], *target[:2]]]
    for k, atoms in enumerate(copies):
        atoms.positions += np.random.default_rng(k).normal(scale=1e-4, size=atoms.positions.shape)
    manifest = run(tmp_path, tiny_model, [[*pool, *copies]], target)
    assert manifest.left_out["repeated"] == 6 and manifest.left_out["in the target's data"] == 2


def test_groups_of_the_target(pool: list[Atoms], target: list[Atoms]) -> None:
    others = [atoms.copy() for atoms in target]
    for k, atoms in enumerate(others):
        atoms.info["group"] = f"pool {k}"
    sets = {"train": target, "valid": others[:3], "test": target}
    found = pool_doctor.overlap(pool[:12], sets, [], "refuse")
    assert kinds(found) == {"groups of valid": (2, 3)}


def path(number: int, start: float) -> list[Atoms]:
    """Methane along one vibration: frames of a trajectory."""
    mode = np.random.default_rng(3).normal(scale=0.1, size=(5, 3))
    frames = []
    for k in range(number):
        atoms = molecule("CH4")
        atoms.positions += np.sin(0.15 * (k + start)) * mode
        frames.append(atoms)
    return frames


def test_a_test_set_between_replayed_structures(target: list[Atoms]) -> None:
    """From the same trajectory, at no distance of a duplicate: said, and refused where that is asked for."""
    sets = {"train": target, "valid": target, "test": path(10, 0.5)}
    (finding,) = pool_doctor.overlap(path(40, 0.0), sets, [], "warn")
    assert (finding.kind, finding.of) == ("near test", 10) and finding.number >= 8
    with pytest.raises(RetemperError, match="near_test"):
        pool_doctor.overlap(path(40, 0.0), sets, [], "refuse")
    (finding,) = pool_doctor.overlap(path(40, 0.0), {**sets, "test": target}, path(10, 0.5), "refuse")
    assert finding.kind == "near retention" and finding.number >= 8
