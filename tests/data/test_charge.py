"""Charge and spin: two spellings, one meaning, from the file to the trained model; an ion is not its molecule.

The model that reads both is a small untrained MACE with embeddings like OMOL's.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from conftest import ROOT
from trainings import make_files, make_plan, run

from retemper.core.errors import RetemperError
from retemper.data import charge, checks
from retemper.data.charge import CHARGE, SPIN
from retemper.data.frames import ENERGY, FORCES, read_frames, structure_hash, write_frames
from retemper.models import mace, predict
from retemper.prepare import pseudolabel


def water(**info: Any) -> Atoms:
    atoms = molecule("H2O")
    atoms.info |= info
    return atoms


def moved(number: int, seed: int = 0, **info: Any) -> list[Atoms]:
    """Copies of a water molecule, each its own geometry."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(number):
        made.append(water(source=f"f:{k}", **info))
        made[-1].positions += rng.normal(0, 0.1, (3, 3))
    return made


def labelled(made: list[Atoms], energy: float) -> list[Atoms]:
    for k, atoms in enumerate(made):
        atoms.info[ENERGY] = energy + 0.01 * k
        atoms.arrays[FORCES] = np.full((3, 3), 0.1) - np.eye(3)
    return made


# ------------------------------------------------------------------ the meaning


def test_both_spellings_mean_the_same() -> None:
    for info in ({"charge": 1, "spin": 2}, {CHARGE: 1.0, SPIN: 2.0}, {"charge": 1, CHARGE: 1, SPIN: np.int64(2)}):
        atoms = water(**info)
        assert (charge.charge_of(atoms), charge.spin_of(atoms)) == (1.0, 2.0)
        assert charge.settle(atoms).info == {CHARGE: 1, SPIN: 2}
    assert (charge.charge_of(water()), charge.spin_of(water())) == (0.0, None)


@pytest.mark.parametrize(
    "info", [{"charge": 1, CHARGE: 0}, {"spin": 1, SPIN: 3}, {"charge": "plus"}, {"spin": 0}, {"spin": 1.5}], ids=str
)
def test_contradictions_are_refused_where_files_are_read(info: dict[str, Any], tmp_path: Path) -> None:
    from ase.io import write

    write(tmp_path / "a.extxyz", [water(), water(**info)])
    with pytest.raises(RetemperError, match=r"a\.extxyz:1"):
        read_frames(tmp_path / "a.extxyz")


def test_files_have_one_spelling(tmp_path: Path) -> None:
    atoms = water(charge=-1, spin=2)
    write_frames(tmp_path / "a.extxyz", [atoms])
    assert "total_charge=-1 total_spin=2" in (tmp_path / "a.extxyz").read_text()
    assert atoms.info == {"charge": -1, "spin": 2}  # as it was
    (again,) = read_frames(tmp_path / "a.extxyz")
    assert again.info == {CHARGE: -1, SPIN: 2}


# ------------------------------------------------------------------ identity


def test_an_ion_is_another_structure() -> None:
    hashes = [
        structure_hash(water(**i)) for i in ({}, {"charge": 1}, {"charge": -1}, {"spin": 3}, {"charge": 1, "spin": 2})
    ]
    assert len(set(hashes)) == 5
    assert hashes[0] == "e6cde244844872f7"  # of a frame that says nothing it is what it always was
    same = [structure_hash(water(**i)) for i in ({}, {"charge": 0}, {CHARGE: 0.0, SPIN: 1}, {"spin": 1})]
    assert len(set(same)) == 1


def test_neutral_and_cation_of_ten_geometries_are_twenty_frames() -> None:
    both = labelled(moved(10), -14.0) + labelled(moved(10, charge=1), -2.0)
    assert checks.find_duplicates(both, 0.01) == {} and checks.find_duplicates(both, 0.0) == {}
    faults, warnings = checks.energy_faults(both, 3.0)  # 4 eV/atom apart: an ionisation
    assert not any(faults) and warnings == []
    same = labelled(moved(10), -14.0) + labelled(moved(10), -2.0)  # the fault it must still find
    assert len(checks.find_duplicates(same, 0.01)) == 20
    with pytest.raises(RetemperError, match="Mixed levels"):
        checks.energy_faults(same, 3.0)


# ------------------------------------------------------------------ models


def test_a_model_is_asked_at_the_charge_of_each_frame(ionic: Path) -> None:
    from mace.calculators import MACECalculator

    states = [{}, {"charge": 1, "spin": 2}, {CHARGE: 1, SPIN: 2}, {CHARGE: -2}, {"spin": 3}]
    found = predict.predict(ionic, [water(**info) for info in states])
    assert found.backend == "torch" and mace.reads(ionic) == (CHARGE, SPIN)
    calculator = MACECalculator(model_paths=str(ionic), device="cpu", default_dtype="float64")
    for atoms, energy in zip([water(), water(charge=1, spin=2)], found.energy, strict=False):
        assert calculator.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-9)
    assert found.energy[1] == found.energy[2]
    assert len(set(found.energy.round(6))) == 4


def test_pseudolabels_of_an_ion_are_not_its_molecules(ionic: Path, tmp_path: Path) -> None:
    right = predict.predict(ionic, [water(), water(charge=1)]).energy
    assert abs(right[1] - right[0]) > 1e-3
    first = pseudolabel.label(ionic, [water()], name="tiny", cache=tmp_path, progress=False)
    for _ in range(2):
        ion = pseudolabel.label(ionic, [water(charge=1)], name="tiny", cache=tmp_path, progress=False)
    assert ion.reused and ion.address != first.address
    assert ion.frames[0].info[ENERGY] == pytest.approx(right[1], abs=1e-7)
    (stored,) = read_frames(tmp_path / ion.address / "labels.extxyz")
    assert stored.info[CHARGE] == 1


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, ionic: Path) -> dict[str, Any]:
    """Sets as `trainings.make_files` has them, from a user's file that says `charge` and `spin`; neutral ones first."""
    from ase.io import write

    from retemper.config.settings import Dataset
    from retemper.data.labels import map_labels

    folder = tmp_path_factory.mktemp("mixed")
    files = make_files(folder, ionic)
    user = labelled(moved(12), -14.0) + labelled(moved(12, seed=1, charge=1, spin=2), -2.0)
    write(folder / "user.extxyz", user)
    dataset = Dataset(files=["user.extxyz"], level_of_theory="x")
    mapped = map_labels(read_frames(folder / "user.extxyz"), dataset, "user.extxyz").frames
    write_frames(folder / "train.extxyz", [*mapped[:8], *mapped[12:20]])
    write_frames(folder / "valid.extxyz", [*mapped[8:12], *mapped[20:]])
    return files


def trained(files: dict[str, Any], name: str, folder: Path, disk_above: int = 50_000) -> dict[str, float]:
    """The only row of a training that does not move the weights."""
    import torch

    plan = make_plan(files, name, epochs=1, training__lr=1e-14)
    target = dataclasses.replace(plan.target, E0s=files["replay_e0s"])
    with torch.jit.optimized_execution(False):
        _, (row,) = run(dataclasses.replace(plan, disk_above=disk_above, target=target), folder)
    return row


def error(frames: list[Atoms], energies: np.ndarray) -> float:
    """RMS of the energy, meV/atom."""
    return 1e3 * float(
        np.sqrt(np.mean([((e - a.info[ENERGY]) / len(a)) ** 2 for a, e in zip(frames, energies, strict=True)]))
    )


@pytest.mark.parametrize("disk_above", [50_000, 0], ids=["memory", "disk"])
def test_a_model_is_trained_at_the_charge_of_each_frame(disk_above: int, mixed: dict[str, Any], tmp_path: Path) -> None:
    """Before it moves, its error on the validation set is that of the foundation at the right charges."""
    row = trained(mixed, "naive", tmp_path / "run", disk_above)
    valid = read_frames(mixed["folder"] / "valid.extxyz")
    right = error(valid, predict.predict(mixed["model"], valid).energy)
    neutral = error(valid, predict.predict(mixed["model"], [Atoms(a.symbols, a.positions) for a in valid]).energy)
    assert abs(right - neutral) > 1
    assert row["valid.energy_rmse"] == pytest.approx(right, rel=1e-6)


def test_replay_is_trained_at_its_charges(mixed: dict[str, Any], tmp_path: Path) -> None:
    replayed = dict(mixed, folder=tmp_path)
    for name in ("train", "valid"):
        shutil.copy(mixed["folder"] / f"{name}.extxyz", tmp_path)
        pool = read_frames(mixed["folder"] / f"replay-{name}.extxyz")
        for atoms in pool[::2]:
            atoms.info |= {"charge": -1, "spin": 2}
        write_frames(tmp_path / f"replay-{name}.extxyz", pool)
    trained(replayed, "replay", tmp_path / "run")  # the proof reads MACE's frames
    valid = read_frames(tmp_path / "replay-valid.extxyz")
    assert [charge.charge_of(atoms) for atoms in valid] == [-1, 0] * 3


def test_the_proof_refuses_frames_that_mace_holds_at_another_charge(mixed: dict[str, Any], tmp_path: Path) -> None:
    """A file that somebody else wrote, in the spelling that MACE does not train on; neutral frames first."""
    from ase.io import write

    for name in ("train", "valid"):
        own = read_frames(mixed["folder"] / f"{name}.extxyz")
        for atoms in own:
            state = charge.info_of(atoms)
            atoms.info = {ENERGY: atoms.info[ENERGY]} | {key.removeprefix("total_"): v for key, v in state.items()}
        write(tmp_path / f"{name}.extxyz", own)
    with pytest.raises(RetemperError, match="other charges or spins"):
        trained(dict(mixed, folder=tmp_path), "naive", tmp_path / "run")


# ------------------------------------------------------------------ the dataset stage


def test_the_dataset_stage_keeps_ions(tmp_path: Path) -> None:
    """A user's file of neutral molecules and cations at the same geometries, with a free ion among the free atoms."""
    from ase.io import write

    from retemper.config.project import Project
    from retemper.config.settings import Settings
    from retemper.prepare import dataset as stage
    from retemper.systems import xtb

    user = []
    for state in ({}, {"charge": 1, "spin": 2}):
        for k, atoms in enumerate(moved(20, **state)):
            atoms.calc = xtb.calculator(state.get("spin"), state.get("charge", 0))
            atoms.info |= {ENERGY: atoms.get_potential_energy(), "name": f"m{k}"}
            atoms.arrays[FORCES] = atoms.get_forces()
            atoms.calc = None
            user.append(atoms)
    for q, energy in ((0, -10.7), (1, 0.0)):
        user.append(Atoms("H", info={ENERGY: energy, "charge": q, "config_type": "IsolatedAtom"}))
    write(tmp_path / "user.extxyz", user)
    dataset = {"files": ["user.extxyz"], "level_of_theory": "x", "group": "name"}
    settings = {"system": "ions", "foundation": "mini", "strategies": ["naive"], "seeds": [1], "dataset": dataset}
    shutil.copytree(ROOT / "foundations", tmp_path / "foundations", ignore=shutil.ignore_patterns("*.model", "*.xz"))
    manifest = stage.run(Project(tmp_path, Settings.model_validate(settings)), out=tmp_path / "out")
    kept = [a for part in ("train", "valid", "test") for a in read_frames(tmp_path / f"out/{part}.extxyz")]
    assert sorted(map(charge.charge_of, kept)) == [0] * 20 + [1] * 20
    (atom,) = read_frames(tmp_path / "out/isolated.extxyz")
    assert atom.info[ENERGY] == -10.7
    (ion,) = read_frames(tmp_path / "out/rejected.extxyz")
    assert "free ion" in ion.info["reason"]
    assert manifest.warnings == []


def test_frames_whose_spin_is_impossible_or_unsaid_are_named() -> None:
    found = charge.warnings([water(charge=1), water(charge=1, spin=1), water(spin=2), water(), water(charge=1, spin=2)])
    assert [text.split()[0] for text in found] == ["2", "1"]
