"""Rounds in the data set: to training and validation by lineage, the test set as it was, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import acquiring
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import molecule
from planted import Pairwise

from retemper.active.label import put
from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core.errors import RetemperError
from retemper.data import rounds
from retemper.data.frames import read_frames, write_frames
from retemper.prepare import dataset as stage
from retemper.records.dataset import DatasetManifest


def labelled(atoms: Atoms, **info: Any) -> Atoms:
    work = Atoms(atoms.numbers, atoms.positions.round(8))
    work.calc = Pairwise()
    made = put(Atoms(work.numbers, work.positions), work.get_potential_energy(), work.get_forces(), None)
    made.info |= {"config_type": "gas", **info}
    return made


def alcohols(number: int, seed: int, **info: Any) -> list[Atoms]:
    random = np.random.default_rng(seed)
    frames = []
    for k in range(number):
        atoms = molecule("CH3CH2OH" if k % 2 else "CH3OH")
        atoms.positions += random.normal(0, 0.06, atoms.positions.shape)
        frames.append(labelled(atoms, **info))
    return frames


def project(root: Path, **dataset: Any) -> Project:
    (root / "foundations").mkdir(exist_ok=True)
    entry = {
        "about": "a",
        "level_of_theory": "PBE",
        "licence": "MIT",
        "citation": "c",
        "elements": "H C O",
        "file": "m",
    }
    (root / "foundations/foundations.yaml").write_text(yaml.safe_dump({"small": entry}))
    if not (root / "data.extxyz").exists():
        frames = alcohols(60, 0)
        for k, atoms in enumerate(frames):
            atoms.info["name"] = f"m{k // 4}"
        write_frames(root / "data.extxyz", frames)
    content = {
        "system": "alcohol",
        "foundation": "small",
        "strategies": ["naive"],
        "seeds": [1],
        "dataset": {
            "files": ["data.extxyz"],
            "level_of_theory": "Morse",
            "max_net_force": 1.0,
            "max_force": 200,
            **dataset,
        },
    }
    return Project(root, Settings.model_validate(content))


def write_round(root: Path, number: int, frames: list[Atoms], level: str = "Morse") -> None:
    folder = root / rounds.FOLDER / rounds.name(number)
    write_frames(folder / "labelled.extxyz", frames)
    acquiring.write_round(root, number, level=level, labelled=len(frames))


def sets(folder: Path) -> dict[str, list[Atoms]]:
    return {
        name: read_frames(folder / f"{name}.extxyz") if (folder / f"{name}.extxyz").stat().st_size else []
        for name in ("train", "valid", "test", "unused", "rejected")
    }


def test_rounds_go_where_their_starts_are(tmp_path: Path) -> None:
    settings = project(tmp_path, max_train=12)
    before_manifest = stage.run(settings, out=tmp_path / "before")
    before = sets(tmp_path / "before")
    group = {name: str(part[0].info["group"]) for name, part in before.items() if name in ("train", "valid", "test")}
    frames = alcohols(9, 7)
    for k, atoms in enumerate(frames):
        atoms.info |= {"group": group[("train", "valid", "test")[k % 3]], "explorer": "md", "pick": k}
    write_round(tmp_path, 1, frames)
    manifest = stage.run(settings, out=tmp_path / "after")
    after = sets(tmp_path / "after")
    assert manifest.sets["test"].hash == before_manifest.sets["test"].hash
    assert len(after["train"]) == 12 + 3  # beyond max_train
    assert [a.info["pick"] for a in after["train"][12:]] == [0, 3, 6]
    assert [a.info["pick"] for a in after["valid"][len(before["valid"]) :]] == [1, 4, 7]
    lost = [a for a in after["rejected"] if a.info["source"].startswith("data/rounds/001:")]
    assert {a.info["reason"] for a in lost} == {"the structure it descends from is in the test set"}
    (joined,) = manifest.rounds
    assert (joined.round, joined.identity, joined.frames_read) == (1, "id1", 9)
    assert joined.train == joined.valid == joined.rejected == 3
    assert manifest.frames_read == before_manifest.frames_read + 9
    without = stage.run(project(tmp_path, max_train=12, rounds=[]), out=tmp_path / "without")
    assert {n: without.sets[n].hash for n in after} == {n: before_manifest.sets[n].hash for n in after}


def test_new_groups_are_shared_by_their_names(tmp_path: Path) -> None:
    frames = alcohols(60, 3)
    for k, atoms in enumerate(frames):
        atoms.info["group"] = f"random search {k // 2}"
    write_round(tmp_path, 1, frames)
    manifest = stage.run(project(tmp_path, valid=0.3), out=tmp_path / "out")
    entry = manifest.rounds[0]
    assert entry.train + entry.valid + entry.rejected == 60
    assert 6 <= entry.valid <= 32
    own = {
        n: {a.info["group"] for a in part if a.info["source"].startswith("data/rounds")}
        for n, part in sets(tmp_path / "out").items()
    }
    assert not own["train"] & own["valid"]


def test_what_is_there_already_is_rejected_with_its_reason(tmp_path: Path) -> None:
    settings = project(tmp_path)
    stage.run(settings, out=tmp_path / "before")
    test = sets(tmp_path / "before")["test"][0]
    twin = labelled(test, group="elsewhere")
    liar = labelled(sets(tmp_path / "before")["train"][0], group="elsewhere")
    liar.info["REF_energy"] += 1.0
    fine = alcohols(2, 11, group="elsewhere")
    broken = fine[1].copy()
    broken.arrays["REF_forces"] = broken.arrays["REF_forces"] + 1000.0
    bare = fine[1].copy()
    del bare.info["REF_energy"]
    write_round(tmp_path, 1, [twin, liar, fine[0], broken, bare])
    write_round(tmp_path, 2, [fine[0]])
    manifest = stage.run(settings, out=tmp_path / "after")
    reasons = {a.info["source"]: a.info["reason"] for a in sets(tmp_path / "after")["rejected"]}
    assert reasons["data/rounds/001:0"] == f"duplicate of {test.info['source']}"
    assert reasons["data/rounds/001:1"].startswith("conflict: another label than data.extxyz")
    assert "dataset.max_force" in reasons["data/rounds/001:3"]
    assert "energy" in reasons["data/rounds/001:4"]
    assert reasons["data/rounds/002:0"] == "duplicate of data/rounds/001:2"
    assert [entry.rejected for entry in manifest.rounds] == [4, 1]


def test_rounds_that_do_not_belong(tmp_path: Path) -> None:
    write_round(tmp_path, 1, alcohols(2, 5, group="x"), level="PBE")
    with pytest.raises(RetemperError, match="Round 1 was labelled at another level"):
        stage.run(project(tmp_path), out=tmp_path / "out")
    stage.run(project(tmp_path, rounds=[]), out=tmp_path / "out")
    with pytest.raises(RetemperError, match="round"):
        stage.run(project(tmp_path, rounds=[7]), out=tmp_path / "out")
    (tmp_path / rounds.FOLDER / "002.dvc").write_text("outs: []\n")
    with pytest.raises(RetemperError, match="dvc pull"):
        stage.run(project(tmp_path), out=tmp_path / "out")


def test_rounds_are_read_in_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_round(tmp_path, number, alcohols(1, number, group=f"g{number}"))
    assert rounds.numbers(tmp_path / rounds.FOLDER) == [1, 2, 10]
    manifest = stage.run(project(tmp_path), out=tmp_path / "out")
    assert [entry.round for entry in manifest.rounds] == [1, 2, 10]
    assert DatasetManifest.read(tmp_path / "out/manifest.json") == manifest
