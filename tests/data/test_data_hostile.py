"""Data that would train or judge a model on something else than the user believes: what comes of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from conftest import ROOT
from labelled_waters import water
from staged_sets import dynamics, staged

from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError
from retemper.data.frames import ENERGY, FORCES, read_frames, write_frames
from retemper.data.grouping import name_of as group_name
from retemper.data.labels import is_free_atom
from retemper.data.nearness import judge, near_in_majority
from retemper.prepare import reference_set

hostile = pytest.mark.hostile("data")
SHIPPED = ("nacl", "molecules", "sn2", "spice", "ice", "lpsc")


# ------------------------------------------------------------------ test frames that training has all but seen


def displaced(strains: tuple[float, ...], number: int, size: float) -> list[Atoms]:
    """Labelled copies of a copper cell, independent of each other."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    random = np.random.default_rng(0)
    frames = []
    for strain in strains:
        for _ in range(number):
            atoms = bulk("Cu", cubic=True) * (2, 2, 2)
            atoms.set_cell(atoms.cell * (1 + strain), scale_atoms=True)
            atoms.positions += random.normal(0, size, atoms.positions.shape)
            atoms.calc = EMT()
            atoms.info[ENERGY], atoms.arrays[FORCES] = float(atoms.get_potential_energy()), atoms.get_forces()
            atoms.calc = None
            frames.append(atoms)
    return frames


def shuffled(frames: list[Atoms], seed: int = 0) -> list[Atoms]:
    return [frames[k].copy() for k in np.random.default_rng(seed).permutation(len(frames))]


def named(frames: list[Atoms], names: Any) -> list[Atoms]:
    copies = [frame.copy() for frame in frames]
    for frame, name in zip(copies, names, strict=False):
        frame.info["traj"] = name
    return copies


LEAKS: dict[str, Any] = {
    "shuffled": lambda slow: ({"data.xyz": shuffled(slow)}, {}),
    "shuffled otherwise": lambda slow: ({"data.xyz": shuffled(slow, 5)}, {"group": "auto", "seed": 3}),
    "random group key": lambda slow: (
        {"data.xyz": named(slow, np.random.default_rng(0).integers(0, 12, len(slow)).tolist())},
        {"group": "traj"},
    ),
    "every frame its own group": lambda slow: ({"data.xyz": named(slow, range(len(slow)))}, {"group": "traj"}),
    "test file of the same trajectory": lambda slow: (
        {"data.xyz": slow[::2], "test.xyz": slow[1::2]},
        {"test_files": ["test.xyz"]},
    ),
    "test file turned and wrapped": lambda slow: (
        {"data.xyz": slow[::2], "test.xyz": [turned(frame) for frame in slow[1::2]]},
        {"test_files": ["test.xyz"]},
    ),
}


def turned(frame: Atoms) -> Atoms:
    new = frame.copy()
    new.rotate(40, (1, 2, 3), rotate_cell=True)
    new.positions += 1.7
    new.wrap()
    new.arrays[FORCES] = new.arrays[FORCES] @ np.linalg.solve(frame.cell.array, new.cell.array)
    return new


@hostile
@pytest.mark.parametrize("mode", ["warn", "refuse"])
@pytest.mark.parametrize("case", LEAKS)
def test_test_frames_between_training_frames_are_said(
    case: str, mode: str, slow: list[Atoms], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, settings = LEAKS[case](slow)
    if mode == "refuse":
        with pytest.raises(RetemperError, match=r"(?s)Most test frames lie between.*of \d+ frames lie on a path"):
            staged(tmp_path, files, near_test="refuse", **settings)
        assert not (tmp_path / "runs/dataset").exists()
        return
    manifest = staged(tmp_path, files, **settings)
    test = manifest.nearness["test"]
    assert test.near > 0.7 * test.judged and test.judged == test.frames
    assert test.nearest < 0.5 * test.usual < 0.3
    assert any(text.startswith("test: ") and "say nothing about new structures" in text for text in manifest.warnings)
    assert f"nearness of test to train: {test.near} of {test.judged}" in capsys.readouterr().out


SOUND: dict[str, Any] = {
    "far apart in time, shuffled": lambda: shuffled(dynamics(1, 60, 20)),
    "cold crystal": lambda: displaced((0.0,), 80, 0.005),
    "hot crystal": lambda: displaced((0.0,), 80, 0.15),
    "five volumes": lambda: shuffled(displaced((-0.04, -0.02, 0.0, 0.02, 0.04), 20, 0.05)),
}


@hostile
@pytest.mark.parametrize("case", SOUND)
def test_independent_frames_raise_no_alarm(case: str, tmp_path: Path) -> None:
    manifest = staged(tmp_path, {"data.xyz": SOUND[case]()}, near_test="refuse")
    assert manifest.nearness["test"].judged > 10
    assert manifest.nearness["test"].near <= 0.2 * manifest.nearness["test"].judged


@hostile
def test_trajectories_of_one_crystal_kept_whole_raise_no_alarm(tmp_path: Path) -> None:
    frames = [frame for k in range(5) for frame in named(dynamics(k, 20, 3), [f"t{k}"] * 20)]
    manifest = staged(tmp_path, {"data.xyz": frames}, group="traj", near_test="refuse")
    assert manifest.nearness["test"].near <= 0.2 * manifest.nearness["test"].judged


@hostile
def test_what_cannot_be_judged_is_said_to_be_not_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = staged(tmp_path, {"data.xyz": [water(k) for k in range(40)]})
    assert manifest.nearness["test"].judged == 0
    assert "nearness of test to train: not tested" in capsys.readouterr().out


@hostile
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sets_raise_no_alarm(name: str, tmp_path: Path) -> None:
    frames = [frame for frame in read_frames(ROOT / f"data/raw/{name}.extxyz.xz") if not is_free_atom(frame)]
    held = set(sorted({str(frame.info["group"]) for frame in frames})[::5])
    train, test = ([a for a in frames if (str(a.info["group"]) in held) == side] for side in (False, True))
    assert not near_in_majority(judge(train, test))


@pytest.mark.parametrize("name", ["3bpa_300K", "water64_revPBE0-D3", "ec_emc_liquid_DFT", "mlearn_Li_PBE"])
def test_published_sets_raise_no_alarm(name: str, real_data: Path) -> None:
    frames = [frame for frame in read_frames(real_data / f"real/{name}.extxyz") if not is_free_atom(frame)]
    order = np.random.default_rng(0).permutation(len(frames))
    found = judge([frames[k] for k in order[::2]], [frames[k] for k in order[1::2]])
    assert found.judged > 20 and not near_in_majority(found)


# ------------------------------------------------------------------ names of groups

SAME = [(1, 1.0), ("1", 1), ("1.0", "1"), (1e0, "1"), (" 7", 7), (-0.0, 0), (2.5, "2.50"), ("1e1", 10), (0, "0")]
DIFFERENT = [(1, 10), ("1a", "1"), ("nan", "inf"), (True, 1), ("run 1", "run 1.0"), (1.5, 1), ("A", "a")]


@hostile
@pytest.mark.parametrize(("a", "b"), SAME, ids=repr)
def test_numbers_that_are_equal_name_one_group(a: object, b: object) -> None:
    assert group_name(a) == group_name(b)


@hostile
@pytest.mark.parametrize(("a", "b"), DIFFERENT, ids=repr)
def test_other_names_are_other_groups(a: object, b: object) -> None:
    assert group_name(a) != group_name(b)


@hostile
def test_a_group_written_as_1_and_as_1_0_is_in_one_set(tmp_path: Path) -> None:
    frames = [water(k, traj=float(k // 5) if k % 2 else k // 5) for k in range(100)]
    manifest = staged(tmp_path, {"data.xyz": frames}, group="traj")
    assert manifest.grouping.groups == 20
    sets = [read_frames(tmp_path / f"runs/dataset/{name}.extxyz") for name in ("train", "valid", "test")]
    places = [{float(frame.info["traj"]) for frame in part} for part in sets]
    assert not (places[0] & places[1] or places[0] & places[2] or places[1] & places[2])


# ------------------------------------------------------------------ absurd frames, names of files, reasons


@hostile
@pytest.mark.parametrize("suffix", ["", ".xyz", ".traj", ".json"])
def test_an_at_sign_in_a_name_is_a_part_of_it(suffix: str, slow: list[Atoms], tmp_path: Path) -> None:
    """ASE takes run@:30 for a slice of the file run."""
    from ase.io import write

    kind = {"": "extxyz", ".xyz": "extxyz", ".traj": "traj", ".json": "json"}[suffix]
    write(str(tmp_path / "run"), slow[:9], format="extxyz")
    with pytest.raises(RetemperError, match=r"(?s)run@:3.* does not exist.*whole name of a file"):
        read_frames(tmp_path / "run@:3")
    (tmp_path / "other").mkdir()
    write(str(tmp_path / f"other/file{suffix}"), slow[10:14], format=kind)
    (tmp_path / f"other/file{suffix}").rename(tmp_path / f"run@:3{suffix}")
    found = read_frames(tmp_path / f"run@:3{suffix}")
    assert len(found) == 4
    np.testing.assert_allclose(found[0].positions, slow[10].positions, atol=1e-6)


# ------------------------------------------------------------------ replay pools and retention sets

POOLS = [
    ("weights", r"config_forces_weight in 1 frame"),
    ("nan", r"the energy is not finite"),
    ("far", r"from the origin"),
    ("stress", r"dataset\.max_stress"),
    ("force", r"dataset\.max_force"),
]


def spoilt(slow: list[Atoms], what: str) -> list[Atoms]:
    frames = [frame.copy() for frame in slow[:10]]
    if what == "weights":
        frames[2].info["config_forces_weight"] = 9.0
    elif what == "nan":
        frames[2].info[ENERGY] = np.nan
    elif what == "far":
        frames[2].positions[0] = 1e12
    elif what == "stress":
        frames[2].info["REF_stress"] = np.full(9, 50.0)
    else:
        frames[2].arrays[FORCES][:2] = [[900.0, 0, 0], [-900.0, 0, 0]]
    return frames


@hostile
@pytest.mark.parametrize(("what", "said"), POOLS)
def test_pools_and_retention_sets_are_checked_as_data_are(
    what: str, said: str, slow: list[Atoms], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pool.extxyz"
    write_frames(path, spoilt(slow, what))
    limits = Dataset(files=["a"], level_of_theory="x")
    with pytest.raises(RetemperError, match=said):
        reference_set.read(path, limits)
    lenient = limits.model_copy(update={"max_rejected": 0.5, "weights": "ignore"})
    frames = reference_set.read(path, lenient)
    assert len(frames) == (10 if what == "weights" else 9)
    assert not any("weight" in key for frame in frames for key in frame.info)
    assert ("left out" in capsys.readouterr().out) == (what != "weights")


@hostile
@pytest.mark.parametrize("factor", [-1.0, 27.2114])
def test_a_pool_in_other_units_is_refused(factor: float) -> None:
    frames = [frame for frame in read_frames(ROOT / "data/raw/nacl.extxyz.xz") if not is_free_atom(frame)]
    for frame in frames:
        frame.arrays[FORCES] = frame.arrays[FORCES] * factor
    with pytest.raises(RetemperError, match=r"pool: wrong units"):
        reference_set.judge_units(frames, "pool", None)
