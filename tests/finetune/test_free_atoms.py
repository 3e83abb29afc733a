"""Free atoms as repeated training frames: what they do to a model that does not give a free atom its E0."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import prepared
import pytest
from architectures import HEAD, build_mh1
from ase import Atoms
from trainings import make_files, make_plan, molecules, run

from retemper.config.project import Project
from retemper.core.errors import RetemperError
from retemper.data.frames import ENERGY, FORCES, read_frames, write_frames
from retemper.finetune import free_atoms
from retemper.finetune.plan import Plan, head_data
from retemper.models import mace, predict
from retemper.records.training import Effective

OFF = 0.3  # eV; labels of the free atoms beyond what the foundation gives them with the target's E0s
TIMES = 4


def free(energies: dict[str, float]) -> list[Atoms]:
    """Free atoms as the stage dataset writes them."""
    frames = [Atoms(symbol, positions=[[0.0, 0.0, 0.0]]) for symbol in energies]
    for frame, energy in zip(frames, energies.values(), strict=True):
        frame.info |= {ENERGY: energy, "config_type": "IsolatedAtom"}
        frame.arrays[FORCES] = np.zeros((1, 3))
    return frames


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Sets of an MH-1 twin, with free atoms of its training frames' elements."""
    folder = tmp_path_factory.mktemp("free")
    made = make_files(folder, build_mh1(folder / "foundation.model"), HEAD["mh-1"], molecules())
    for name, number in (("train", 8), ("valid", 2)):
        write_frames(folder / f"{name}.extxyz", read_frames(folder / f"{name}.extxyz")[:number])
    return made


@pytest.fixture
def project(files: dict[str, Any], tmp_path: Path) -> Project:
    """Its stages dataset and e0s, with free atoms of H, C, O and Cl; nitrogen is in the data, and sodium is not."""
    made = prepared.project(tmp_path, files["model"], finetune={"free_atoms": TIMES})
    write_frames(made.structures("train"), read_frames(files["folder"] / "train.extxyz"))
    write_frames(made.structures("isolated"), free({"Na": -5.0, "H": -1.0, "C": -9.0, "O": -8.0}))
    made.e0s.parent.mkdir(parents=True)
    record = prepared.e0s({1: -1.0, 6: -9.0, 7: -3.0, 8: -8.0})
    record.model_copy(update={"elements_in_data": ["H", "C", "N", "O"]}).write(made.e0s)
    return made


def test_each_free_atom_of_the_elements_in_the_data_joins(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    train = project.structures("train")
    out = free_atoms.joined(project, train)
    before, after = read_frames(train), read_frames(out)
    added = after[len(before) :]
    assert [str(frame.symbols) for frame in added] == ["H", "C", "O"] * TIMES
    assert [frame.info[ENERGY] for frame in added[:3]] == [-1.0, -9.0, -8.0]
    assert all(len(frame) > 1 for frame in read_frames(train)) and len(read_frames(train)) == len(before)
    assert "no free atom of N" in caplog.text
    assert free_atoms.joined(project, train) == out
    off = Project(project.root, project.settings.model_copy(update={"finetune": type(project.settings.finetune)()}))
    assert free_atoms.joined(off, train) == train


def test_without_free_atoms_in_the_data_the_setting_is_an_error(project: Project) -> None:
    for energies in ({}, {"Na": -5.0}):
        write_frames(project.structures("isolated"), free(energies))
        with pytest.raises(RetemperError) as raised:
            free_atoms.joined(project, project.structures("train"))
        assert "finetune.free_atoms" in str(raised.value) and "H, C, N, O" in str(raised.value.expected)


def with_free_atoms(files: dict[str, Any], plan: Plan, out: Path, times: int) -> tuple[Plan, list[Atoms]]:
    """`plan` with free atoms whose labels are off by OFF, and those atoms."""
    train = read_frames(files["folder"] / "train.extxyz")
    symbols = sorted({symbol for frame in train for symbol in frame.symbols})
    atoms = free(dict.fromkeys(symbols, 0.0))
    gives = predict.predict(files["model"], atoms, head=files["head"], backend="torch").energy
    own = mace.atomic_energies(files["model"], files["head"])
    for frame, energy in zip(atoms, gives, strict=True):
        z = int(frame.numbers[0])
        frame.info[ENERGY] = float(energy) - own[z] + files["target_e0s"][z] + OFF
    write_frames(out, train + atoms * times)
    return dataclasses.replace(plan, target=head_data(out, Path(plan.target.valid), "target", plan.target.E0s)), atoms


def errors(model: Path, atoms: list[Atoms]) -> np.ndarray:
    """Errors of the energies of free atoms, eV."""
    got = predict.predict(model, atoms, head="Default", backend="torch").energy
    return np.abs(got - [frame.info[ENERGY] for frame in atoms])


def test_the_free_atoms_of_a_model_with_biases_come_closer(files: dict[str, Any], tmp_path: Path) -> None:
    """In as many epochs; the proof counts them. Some batches hold nothing but free atoms, which have no pairs."""
    base = dataclasses.replace(make_plan(files, "naive", epochs=8, training__lr=3e-3), batch_size=2)
    repeated, atoms = with_free_atoms(files, base, tmp_path / "train.extxyz", TIMES)
    off = {}
    for name, plan in (("without", base), ("with", repeated)):
        run(plan, tmp_path / name)
        off[name] = errors(tmp_path / name / "model.safetensors", atoms)
    assert off["with"].mean() < 0.5 * off["without"].mean(), off
    proof = Effective.read(tmp_path / "with/effective.json")
    number = TIMES * len(atoms)
    assert proof.differences == [] and proof.asked.free_atoms == proof.ran.free_atoms == number
    assert proof.ran.frames == {"Default": [base.target.n_train + number, base.target.n_valid]}
    assert "free_atoms" not in (tmp_path / "without/effective.json").read_text()
    assert base.target.free_atoms == 0 and repeated.key != base.key


def test_free_atoms_are_counted_from_disk_too(files: dict[str, Any], tmp_path: Path) -> None:
    plan, atoms = with_free_atoms(files, make_plan(files, "naive", epochs=1), tmp_path / "train.extxyz", 1)
    run(dataclasses.replace(plan, disk_above=0), tmp_path / "run")
    assert Effective.read(tmp_path / "run/effective.json").ran.free_atoms == len(atoms)


def test_mace_would_drop_them(files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MACE takes isolated atoms out of a training file unless it is told not to; the proof sees it."""
    from retemper.finetune.mace import train

    plan, _ = with_free_atoms(files, make_plan(files, "naive", epochs=1), tmp_path / "train.extxyz", 1)
    flags = train.mace_flags
    monkeypatch.setattr(train, "mace_flags", lambda *given: {**flags(*given), "keep_isolated_atoms": False})
    with pytest.raises(RetemperError, match=f"trains on {plan.target.n_train - plan.target.free_atoms} frames"):
        run(plan, tmp_path / "run")
