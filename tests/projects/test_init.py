"""``retemper init`` proposes settings that fit the data, says why, and leaves nothing behind where it refuses."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms, units
from ase.io import read, write
from conftest import ROOT
from relabelled import relabelled

from retemper.cli import main
from retemper.config.project import Project
from retemper.projects import create, foundation_choice


def start(folder: Path, *arguments: str) -> Project:
    """Run the command; the project that it made."""
    main.main(["init", str(folder), *arguments])
    return Project.here(folder)


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())


def test_other_keys_charges_and_free_atoms(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    kept = relabelled("sn2", tmp_path / "sn2.xyz")
    project = start(tmp_path / "mine", "--data", str(tmp_path / "sn2.xyz"), "--level", "B3LYP/def2-SVPD")
    settings, text = project.settings, (project.root / "params.yaml").read_text()
    keys = settings.dataset.keys
    assert (keys.energy, keys.forces, keys.stress) == ("dft_energy", "dft_forces", None)
    assert settings.dataset.level_of_theory == "B3LYP/def2-SVPD" and settings.dataset.group == "group"
    assert (settings.system, settings.foundation, settings.seeds) == ("mine", "mini", [1, 2])
    assert [gate.over for gate in settings.promotion.gates if gate.relative_to] == [["frames", "seeds"]] * 2
    assert settings.e0s.method == "reestimate" and not settings.e0s.force and settings.dataset.max_train is None
    charged = sum(frame.info.get("charge", 0) == -1 for frame in kept)
    assert f"-1 in {charged}" in text and "mace-omol reads it" in text
    assert "free atoms of Br C Cl F H I in the data settle" in " ".join(text.replace("#", " ").split())
    said = capsys.readouterr().out
    assert f"{len(kept)} labelled structures" in said and "for trying out" in said and "dvc repro" in said


def test_units_are_told_from_the_labels(tmp_path: Path) -> None:
    """Hartree and Hartree/Bohr, as ORCA and PySCF print them; the train set is in eV again."""
    kept = relabelled("molecules", tmp_path / "data.xyz", energy=units.Hartree, length=units.Bohr)
    project = start(tmp_path / "mine", "--data", str(tmp_path / "data.xyz"))
    assert (project.settings.dataset.energy_unit, project.settings.dataset.length_unit) == ("Hartree", "Bohr")
    from retemper.prepare import dataset

    dataset.run(project)
    original = {frame.positions.round(6).tobytes(): frame for frame in kept}
    train = read(project.structures("train"), ":")
    for frame in train:
        before = original[frame.positions.round(6).tobytes()]
        assert frame.info["REF_energy"] == pytest.approx(before.info["dft_energy"] * 27.211386, abs=1e-4)
        assert np.allclose(frame.arrays["REF_forces"], before.arrays["dft_forces"] * 51.422067, atol=1e-5)
    assert len(train) > 50


def test_a_virial_and_several_files(tmp_path: Path) -> None:
    relabelled("lpsc", tmp_path / "a.xyz", stress=True)
    relabelled("lpsc", tmp_path / "b.xyz", stress=True, first=1)
    project = start(tmp_path / "mine", "--data", str(tmp_path / "a.xyz"), str(tmp_path / "b.xyz"), "--seeds", "3")
    keys = project.settings.dataset.keys
    assert (keys.stress, keys.virial) == (None, "dft_virial") and project.settings.seeds == [3]
    assert project.settings.dataset.files == ["data/raw/a.xyz", "data/raw/b.xyz"]
    compared = [gate for gate in project.settings.promotion.gates if gate.relative_to]
    assert [gate.over for gate in compared] == [["frames"]] * 2  # one seed has no spread
    assert (project.root / "data/raw/a.xyz").read_bytes() == (tmp_path / "a.xyz").read_bytes()


def test_e0s_that_the_data_leave_open_are_said(tmp_path: Path) -> None:
    """Water alone: H and O occur only as 2:1, and there are no free atoms."""
    frames = [frame for frame in read(ROOT / "data/raw/ice.extxyz.xz", ":") if len(frame) > 1][::2]
    write(tmp_path / "ice.extxyz", frames)
    project = start(tmp_path / "mine", "--data", str(tmp_path / "ice.extxyz"))
    assert project.settings.e0s.force and project.settings.dataset.keys.stress == "REF_stress"
    assert project.settings.dataset.level_of_theory == frames[0].info["level"]
    assert "add free atoms of" in (project.root / "params.yaml").read_text()


def test_elements_that_the_miniature_lacks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    frames = [frame for frame in read(ROOT / "data/raw/lpsc.extxyz.xz", ":") if len(frame) > 1]
    for frame in frames:
        frame.numbers[frame.numbers == 17] = 35
        frame.numbers[frame.numbers == 15] = 33  # As
    write(tmp_path / "as.extxyz", frames)
    project = start(tmp_path / "mine", "--data", str(tmp_path / "as.extxyz"), "--level", "r2SCAN")
    assert project.settings.foundation == "mace-matpes-r2scan-0"
    assert project.settings.strategies == ["naive", "pseudolabel-replay"]
    assert not (project.root / "foundations/mini.model").exists() and project.foundation.licence == "ASL"
    assert "no limit in meV/A yet" in (project.root / "params.yaml").read_text()
    assert "foundations get mace-matpes-r2scan-0 --accept-licence" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("symbols", "level", "molecular", "best"),
    [
        (["Li", "Mn", "O"], "PBE", False, "mace-mp-0b2-small"),
        (["Li", "Mn", "O"], "r2SCAN", False, "mace-matpes-r2scan-0"),
        (["C", "H", "O"], None, True, "mace-off-small"),
        (["C", "H", "O"], "ωB97X-D", True, "mace-off-small"),
        (["C", "H", "O"], "CCSD(T)", True, "mace-ani-cc"),
        (["C", "Fe", "H"], "PBE0", True, "mace-mp-0b2-small"),
    ],
)
def test_the_foundation_that_fits_best(symbols: list[str], level: str | None, molecular: bool, best: str) -> None:
    assert foundation_choice.fitting(symbols, level, molecular=molecular)[0] == best


def test_few_groups_are_said_and_gates_do_not_ask_for_intervals(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Three groups: one is the test set, and no comparison and no bound of an interval could ever be passed."""
    relabelled("molecules", tmp_path / "data.xyz")
    frames = read(tmp_path / "data.xyz", ":")
    for k, frame in enumerate(frames):
        frame.info["group"] = f"run-{k % 3}"
    write(tmp_path / "data.xyz", frames)
    project = start(tmp_path / "mine", "--data", str(tmp_path / "data.xyz"), "--group", "group")
    gates = [gate for gate in project.settings.promotion.gates if gate.metric == "target.force_rmse"]
    assert [(gate.relative_to, gate.by) for gate in gates] == [("champion", "bound"), (None, "value")]
    assert "too few groups" in (project.root / "params.yaml").read_text()
    assert "fewer than 5 compare nothing" in " ".join(capsys.readouterr().out.split())


def test_small_sets_get_more_epochs(tmp_path: Path) -> None:
    """So that each strategy makes some 1,500 steps of four structures."""
    frames = relabelled("lpsc", tmp_path / "data.xyz")
    project = start(tmp_path / "mine", "--data", str(tmp_path / "data.xyz"))
    settings = project.settings
    train = len(frames) * (1 - settings.dataset.valid - settings.dataset.test)
    assert settings.finetune.batch_size == 4 and len(frames) < 100
    assert settings.finetune.epochs == min(200, round(1500 / (train / 4)))


def test_large_data_are_kept_by_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "LARGE", 10_000)
    relabelled("molecules", tmp_path / "data.xyz")
    project = start(tmp_path / "mine", "--data", str(tmp_path / "data.xyz"))
    tracked = subprocess.run(["git", "ls-files"], cwd=project.root, capture_output=True, text=True, check=True).stdout
    assert "data/raw/data.xyz.dvc" in tracked.split() and "data/raw/data.xyz" not in tracked.split()
    (project.root / "data/raw/data.xyz").unlink()
    subprocess.run([sys.executable, "-m", "dvc", "checkout", "-q", "data/raw/data.xyz"], cwd=project.root, check=True)
    assert (project.root / "data/raw/data.xyz").read_bytes() == (tmp_path / "data.xyz").read_bytes()


def per_atom(frames: list[Atoms]) -> None:
    for frame in frames:
        frame.info["dft_energy"] /= len(frame)


def gradients(frames: list[Atoms]) -> None:
    for frame in frames:
        frame.arrays["dft_forces"] *= -1


def two_levels(frames: list[Atoms]) -> None:
    for k, frame in enumerate(frames):
        frame.info["functional"] = ("PBE", "SCAN")[k % 2]


def no_forces(frames: list[Atoms]) -> None:
    for frame in frames:
        del frame.arrays["dft_forces"]


@pytest.mark.hostile("data")
@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (per_atom, (), "each by its number of atoms"),
        (gradients, (), "multiply the forces by -1"),
        (two_levels, (), "Mixed levels of theory"),
        (no_forces, (), "No structure has energy and forces"),
        (None, ("--foundation", "mace-off"), "did you mean 'mace-off"),
        (None, ("--foundation", "mace-polar-1-s"), "PolarMACE"),
        (None, ("--strategies", "naiv"), "did you mean 'naive'"),
        (None, ("--group", "trajectroy"), "No frame has the info key"),
        (None, ("--keys", "energy=E_dft"), "no frame has the key 'E_dft'"),
        (None, ("--keys", "enrgy=x"), "did you mean 'energy'"),
        (None, ("--energy-unit", "ergs"), "energy_unit"),
        (None, ("--example",), "needs data"),
    ],
)
def test_what_cannot_be_leaves_nothing_behind(tmp_path, capsys, change, arguments, message) -> None:
    relabelled("molecules", tmp_path / "data.xyz")
    if change is not None:
        frames = read(tmp_path / "data.xyz", ":")
        change([frame for frame in frames if len(frame) > 1])
        write(tmp_path / "data.xyz", frames)
    with pytest.raises(SystemExit):
        start(tmp_path / "mine", "--data", str(tmp_path / "data.xyz"), *arguments)
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data.xyz"]


@pytest.mark.hostile("users")
def test_what_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years")
    for name, message in (("mine", "is not empty"), ("-a", "no name"), ("a b", "no name of a project")):
        with pytest.raises(SystemExit):
            main.main(["init", "--example", "--", str(tmp_path / name)])
        assert message in capsys.readouterr().err
    assert (tmp_path / "mine/thesis.tex").read_text() == "years" and len(list(tmp_path.rglob("*"))) == 2


def test_a_git_that_knows_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "EMAIL": ""}.items():
        monkeypatch.setenv(name, value)
    for name in [name for name in os.environ if name.startswith(("GIT_AUTHOR", "GIT_COMMITTER"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "user.useConfigOnly")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    project = start(tmp_path / "mine", "--example")
    log = subprocess.run(["git", "log", "--format=%an"], cwd=project.root, capture_output=True, text=True, check=True)
    assert log.stdout.strip() == "retemper" and "git config user.name" in capsys.readouterr().out


def test_three_questions_on_a_terminal(tmp_path: Path) -> None:
    """Answers: a level, nothing for the foundation, composition for the groups."""
    relabelled("molecules", tmp_path / "data.xyz")
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "retemper", "init", "mine", "--data", "data.xyz"]
    os.write(ours, b"GFN2-xTB\n\ncomposition\n")
    done = subprocess.run(command, cwd=tmp_path, stdin=theirs, capture_output=True, text=True, check=True)
    os.close(ours)
    os.close(theirs)
    assert done.stdout.count("]: ") == 3
    content = yaml.safe_load((tmp_path / "mine/params.yaml").read_text())
    assert content["dataset"]["level_of_theory"] == "GFN2-xTB" and content["dataset"]["group"] == "composition"
    assert content["foundation"] == "mini"
