"""The dataset stage as a whole: what it writes, what it refuses, and that nothing is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import molecule
from ase.io import write

from retemper.config import foundations
from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.data.frames import labels_hash, read_frames
from retemper.prepare import dataset as stage
from retemper.records.dataset import DatasetManifest

ROOT = Path(__file__).resolve().parents[2]
SETS = ("train", "valid", "test", "isolated", "unused", "rejected")


@pytest.fixture(scope="module")
def labelled() -> list[Atoms]:
    """Sixty rattled ethanol and methanol molecules at GFN2-xTB, and a hydrogen atom."""
    from tblite.ase import TBLite

    random = np.random.default_rng(0)
    frames = []
    for k in range(60):
        atoms = molecule("CH3CH2OH" if k % 2 else "CH3OH")
        atoms.positions += random.normal(0, 0.06, atoms.positions.shape)
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        atoms.info |= {"REF_energy": atoms.get_potential_energy(), "name": f"m{k // 4}", "config_type": "gas"}
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
        frames.append(atoms)
    frames.append(Atoms("H", info={"REF_energy": -10.7, "config_type": "IsolatedAtom"}))
    return frames


def project(root: Path, frames: list[Atoms], **dataset: Any) -> Project:
    """A project folder with one data file."""
    write(root / "data.extxyz", frames, format="extxyz")
    (root / "foundations").mkdir(exist_ok=True)
    about = {"about": "a", "level_of_theory": "PBE", "licence": "MIT", "citation": "c"}
    entry = {**about, "elements": "H C O Na Cl", "file": "model"}
    (root / "foundations/foundations.yaml").write_text(yaml.safe_dump({"small": entry}))
    content = {
        "system": "alcohol",
        "foundation": "small",
        "strategies": ["naive"],
        "seeds": [1],
        "dataset": {"files": ["data.extxyz"], "level_of_theory": "GFN2-xTB", **dataset},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    return Project(root, Settings.model_validate(content))


def read(folder: Path, name: str) -> list[Atoms]:
    path = folder / f"{name}.extxyz"
    return read_frames(path) if path.stat().st_size else []


def spoil(frames: list[Atoms]) -> list[Atoms]:
    return [frame.copy() for frame in frames]


def test_a_sound_set(tmp_path: Path, labelled: list[Atoms], capsys: pytest.CaptureFixture[str]) -> None:
    manifest = stage.run(project(tmp_path, labelled))
    sets = {name: read(tmp_path / "runs/dataset", name) for name in SETS}
    assert sum(map(len, sets.values())) == manifest.frames_read == 61
    assert len(sets["isolated"]) == 1
    assert len(sets["rejected"]) == 0
    assert (manifest.grouping.rule, manifest.grouping.groups) == ("info key name", 15)
    groups = {name: {frame.info["group"] for frame in sets[name]} for name in ("train", "valid", "test")}
    assert not groups["train"] & groups["valid"]
    assert not groups["train"] & groups["test"]
    for name in SETS:
        assert manifest.sets[name].frames == len(sets[name])
        assert manifest.sets[name].hash == labels_hash(sets[name])  # what was hashed is what was written
    assert manifest == DatasetManifest.read(tmp_path / "runs/dataset/manifest.json")
    assert manifest.sources[0].sha256 == sha256(tmp_path / "data.extxyz")
    assert manifest.level_of_theory.declared == "GFN2-xTB"
    assert manifest.elements == ["C", "H", "O"]
    for frame in sets["train"]:
        index = int(frame.info["source"].rpartition(":")[2])
        assert frame.info["REF_energy"] == pytest.approx(labelled[index].info["REF_energy"])
        np.testing.assert_allclose(frame.arrays["REF_forces"], labelled[index].arrays["REF_forces"], atol=1e-8)
    printed = capsys.readouterr().out
    assert "61 frames read, C H O, GFN2-xTB" in printed
    assert "train" in printed


def test_a_given_test_set_is_the_test_set(tmp_path: Path, labelled: list[Atoms]) -> None:
    write(tmp_path / "warm.extxyz", labelled[:12], format="extxyz")
    settings = project(tmp_path, labelled[11:], test_files=["warm.extxyz"])
    stage.run(settings)
    sets = {name: read(tmp_path / "runs/dataset", name) for name in SETS}
    assert [frame.info["source"] for frame in sets["test"]] == [f"warm.extxyz:{k}" for k in range(12)]
    assert len(sets["train"]) + len(sets["valid"]) == 48
    assert [frame.info["source"] for frame in sets["rejected"]] == ["data.extxyz:0"]  # it is a test frame too


def test_the_same_input_gives_the_same_output(tmp_path: Path, labelled: list[Atoms]) -> None:
    settings = project(tmp_path, labelled)
    first = stage.run(settings, out=tmp_path / "one")
    assert first == stage.run(settings, out=tmp_path / "two")
    for name in SETS:
        assert (tmp_path / f"one/{name}.extxyz").read_bytes() == (tmp_path / f"two/{name}.extxyz").read_bytes()


def test_bad_frames_are_set_apart_with_reasons(tmp_path: Path, labelled: list[Atoms]) -> None:
    frames = spoil(labelled)
    frames[3].info["REF_energy"] = np.nan
    frames[8].arrays["REF_forces"][0, 0] = np.inf
    frames[11].info["REF_energy"] += 1e5
    frames.append(frames[20].copy())
    settings = project(tmp_path, frames, max_rejected=0.1)
    manifest = stage.run(settings, out=tmp_path / "out")
    reasons = {frame.info["source"]: frame.info["reason"] for frame in read(tmp_path / "out", "rejected")}
    assert set(reasons) == {"data.extxyz:3", "data.extxyz:8", "data.extxyz:11", "data.extxyz:61"}
    assert reasons["data.extxyz:3"] == "the energy is not finite"
    assert reasons["data.extxyz:8"] == "a force is not finite"
    assert "dataset.energy_window" in reasons["data.extxyz:11"]
    assert reasons["data.extxyz:61"] == "duplicate of data.extxyz:20"
    assert sum(manifest.rejected.values()) == 4
    assert manifest.frames_read == 62 == sum(len(read(tmp_path / "out", name)) for name in SETS)


def test_too_many_bad_frames_stop_with_nothing_written(tmp_path: Path, labelled: list[Atoms]) -> None:
    frames = spoil(labelled)
    for k in range(10):
        frames[k].info["REF_energy"] = np.nan
    with pytest.raises(RetemperError, match=r"10 of 61 frames fail the checks: the energy is not finite \(10\)"):
        stage.run(project(tmp_path, frames), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.extxyz", "foundations", "params.yaml"]


def test_smaller_training_sets_are_nested(tmp_path: Path, labelled: list[Atoms]) -> None:
    sources = []
    for number in (12, 25, None):
        manifest = stage.run(project(tmp_path, labelled, max_train=number), out=tmp_path / "out")
        train = read(tmp_path / "out", "train")
        sources.append({frame.info["source"] for frame in train})
        left_out = [frame.info["reason"] for frame in read(tmp_path / "out", "unused")]
        if number:
            assert len(train) == number
            assert left_out == ["beyond dataset.max_train"] * manifest.unused["beyond dataset.max_train"]
    assert sources[0] < sources[1] < sources[2]


def test_wrong_units_and_elements_stop(tmp_path: Path, labelled: list[Atoms]) -> None:
    frames = spoil(labelled)
    for frame in frames[:-1]:
        frame.info["REF_energy"] /= 27.211386
        frame.arrays["REF_forces"] /= 51.422067
    with pytest.raises(RetemperError, match="energies in Hartree and forces in Hartree/Bohr"):
        stage.run(project(tmp_path, frames), out=tmp_path / "out")
    frames[-1].info["REF_energy"] /= 27.211386
    stage.run(project(tmp_path, frames, energy_unit="Hartree", length_unit="Bohr"), out=tmp_path / "out")
    assert read(tmp_path / "out", "isolated")[0].info["REF_energy"] == pytest.approx(-10.7, abs=1e-5)
    sulphur = [*spoil(labelled), molecule("SH2")]
    sulphur[-1].info["REF_energy"] = -100.0
    sulphur[-1].arrays["REF_forces"] = np.zeros((3, 3))
    with pytest.raises(RetemperError, match=r"The foundation small does not know elements of the data: S \(1 frames\)"):
        stage.run(project(tmp_path, sulphur), out=tmp_path / "out")


def test_free_atoms_that_disagree_are_not_used(tmp_path: Path, labelled: list[Atoms]) -> None:
    other = labelled[-1].copy()
    other.info["REF_energy"] = -13.6
    manifest = stage.run(project(tmp_path, [*labelled, other]), out=tmp_path / "out")
    assert read(tmp_path / "out", "isolated") == []
    assert manifest.rejected == {"conflict": 2}
    assert any("free atoms of H have different energies" in text for text in manifest.warnings)


def test_the_stage_from_the_command_line(tmp_path: Path, labelled: list[Atoms]) -> None:
    project(tmp_path, labelled)
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "pipelines.dataset"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no structure or group in two sets" in done.stdout
    assert DatasetManifest.read(tmp_path / "runs/dataset/manifest.json").frames_read == 61


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("empty", "is empty"),
        ("truncated", "data.extxyz"),
        ("one frame", "Only 1 frame(s) are left"),
        ("key", "set dataset.keys.energy: REF_energy"),
        ("group", "No frame has the info key 'trajectory'"),
        ("missing", "does not exist"),
    ],
)
def test_bad_input_ends_with_a_message_and_status_1(
    case: str,
    message: str,
    tmp_path: Path,
    labelled: list[Atoms],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    from pipelines.dataset import main

    changes: dict[str, Any] = {
        "key": {"keys": {"energy": "REF_enregy"}},
        "group": {"group": "trajectory"},
        "missing": {"files": ["none.extxyz"]},
    }.get(case, {})
    project(tmp_path, labelled[:1] if case == "one frame" else labelled, **changes)
    data = tmp_path / "data.extxyz"
    if case == "empty":
        data.write_text("")
    elif case == "truncated":
        data.write_text("\n".join(data.read_text().splitlines()[:-5]) + "\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs/dataset").exists()


PUBLISHED = {  # frames that a sound set may lose
    "real/3bpa_300K": 0,
    "real/3bpa_mixedT": 0,
    "real/ec_emc_liquid_DFT": 0,
    "real/li_mn_o_PBE": 4,  # two structures with two energies each
    "real/mlearn_Li_PBE": 0,
    "real/mptrj_random_1k_PBE": 2,  # forces above 50 eV/A
    "real/nacl_water_MP2_gen2": 0,
    "real/water64_revPBE0-D3": 0,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sets_lose_next_to_nothing(name: str, tmp_path: Path, real_data: Path) -> None:
    keys = {"stress": None, "virial": "REF_virial"} if "ec_emc" in name else {}
    settings = project(tmp_path, [Atoms("H")], files=[str(real_data / f"{name}.extxyz")], keys=keys)
    catalogue = tmp_path / "foundations/foundations.yaml"
    every = str(foundations.shipped()["mace-mp-0-small"].elements)
    catalogue.write_text(catalogue.read_text().replace("H C O Na Cl", every))
    manifest = stage.run(settings, out=tmp_path / "out")
    assert manifest.sets["rejected"].frames <= PUBLISHED[name]
    frames = manifest.frames_read - manifest.sets["isolated"].frames
    for part in ("valid", "test"):
        assert 0.06 <= manifest.sets[part].frames / frames <= 0.16


def test_files_at_another_level_are_left_out_and_counted(tmp_path: Path, labelled: list[Atoms]) -> None:
    """The file's labels are no part of any set, nor of any check; a level that no file has is refused."""
    other = [frame.copy() for frame in labelled[:20]]
    for frame in other:
        frame.positions += 0.3 * np.random.default_rng(1).normal(size=frame.positions.shape)
        frame.info["REF_energy"] += 3000.0
    write(tmp_path / "other.extxyz", other, format="extxyz")
    files = ["data.extxyz", "other.extxyz"]
    settings = project(tmp_path, labelled, files=files, levels={"other.extxyz": "PBE"})
    manifest = stage.run(settings)
    alone = stage.run(project(tmp_path, labelled), out=tmp_path / "alone")
    for name in ("train", "valid", "test", "isolated"):
        assert manifest.sets[name].hash == alone.sets[name].hash
    assert manifest.level_of_theory.left_out == 20
    assert manifest.unused["another level of theory"] == 20 and manifest.rejected == alone.rejected
    left = [frame for frame in read(tmp_path / "runs/dataset", "unused") if "(PBE)" in frame.info["reason"]]
    assert len(left) == 20
    with pytest.raises(RetemperError, match="No file is at"):
        levels = dict.fromkeys(files, "PBE")
        stage.run(project(tmp_path, labelled, files=files, levels=levels), out=tmp_path / "none")
    with pytest.raises(RetemperError, match="dataset.levels"):
        stage.run(project(tmp_path, labelled, levels={"othr.extxyz": "PBE"}), out=tmp_path / "none")
