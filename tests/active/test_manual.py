"""Labels that people make: given out, taken back, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms
from copper_clusters import clusters, direct

from retemper.active import manual
from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core.errors import RetemperError
from retemper.data.frames import ENERGY, read_frames, write_frames


def by_hand(root: Path) -> Project:
    content = {
        "system": "copper",
        "foundation": "mini",
        "strategies": ["naive"],
        "seeds": [1],
        "dataset": {
            "files": ["a.extxyz"],
            "level_of_theory": "EMT",
            "keys": {"energy": "E", "forces": "F", "stress": None},
        },
        "acquire": {"oracle": {"name": "manual", "options": {"level_of_theory": "EMT"}}},
    }
    return Project(root, Settings.model_validate(content))


def answer(frames: list[Atoms], path: Path) -> None:
    made = []
    for atoms in frames:
        copy = Atoms(atoms.numbers, atoms.positions)
        copy.info["E"], copy.arrays["F"] = direct(atoms)
        made.append(copy)
    write_frames(path, made)


def test_labels_come_back(tmp_path: Path) -> None:
    project, chosen = by_hand(tmp_path), clusters(4)
    with pytest.raises(RetemperError, match="4 structures of round 3 wait"):
        manual.collect(chosen, project, 3, False)
    folder = project.to_label / "003"
    given = read_frames(folder / manual.GIVEN)
    assert [len(atoms) for atoms in given] == [2, 3, 4, 5]
    answer([given[2], given[0]], folder / "labelled.extxyz")
    with pytest.raises(RetemperError, match="2 of 4 structures have no label yet"):
        manual.collect(chosen, project, 3, False)
    labelled, failed = manual.collect(chosen, project, 3, True)
    assert [len(atoms) for atoms in labelled] == [2, 4] and [len(atoms) for atoms in failed] == [3, 5]
    answer([given[1], given[3]], folder / "labelled-2.extxyz")
    labelled, failed = manual.collect(chosen, project, 3, False)
    assert [atoms.info[ENERGY] for atoms in labelled] == pytest.approx([direct(atoms)[0] for atoms in chosen], abs=1e-9)
    assert not failed


def test_labels_of_moved_structures_are_refused(tmp_path: Path) -> None:
    project, chosen = by_hand(tmp_path), clusters(3)
    moved = chosen[1].copy()
    moved.positions += 0.5
    (project.to_label / "001").mkdir(parents=True)
    answer([moved], project.to_label / "001/labelled.extxyz")
    with pytest.raises(RetemperError, match="moved, turned or reordered"):
        manual.collect(chosen, project, 1, False)


def test_a_round_begun_anew_gives_out_its_own_structures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The old ones go where there is no label of them; with labels they are kept aside."""
    project, structures = by_hand(tmp_path), clusters(6)
    folder = project.to_label / "001"
    for chosen in (structures[:2], structures[2:4]):
        with pytest.raises(RetemperError, match="wait for your labels"):
            manual.collect(chosen, project, 1, False)
        assert [len(atoms) for atoms in read_frames(folder / manual.GIVEN)] == [len(atoms) for atoms in chosen]
    answer(structures[2:4], folder / "labelled.extxyz")
    assert len(manual.collect(structures[2:4], project, 1, False)[0]) == 2
    with pytest.raises(RetemperError, match="wait for your labels"):
        manual.collect(structures[4:], project, 1, False)
    assert "labels of those are in" in capsys.readouterr().out
    aside = project.to_label / "001-before-1"
    assert [len(atoms) for atoms in read_frames(aside / "labelled.extxyz")] == [4, 5]
    answer(structures[4:], folder / "labelled.extxyz")
    assert len(manual.collect(structures[4:], project, 1, False)[0]) == 2


def test_two_labels_of_one_structure_must_agree(tmp_path: Path) -> None:
    project, chosen = by_hand(tmp_path), clusters(2)
    folder = project.to_label / "001"
    for name in ("labelled-1", "labelled-2"):
        answer(chosen, folder / f"{name}.extxyz")
    labelled, _ = manual.collect(chosen, project, 1, False)
    assert labelled[0].info[ENERGY] == pytest.approx(direct(chosen[0])[0], abs=1e-9)
    wrong = read_frames(folder / "labelled-2.extxyz")
    wrong[1].info["E"] -= 1.0
    write_frames(folder / "labelled-2.extxyz", wrong)
    with pytest.raises(RetemperError, match=r"labelled-2.extxyz: structure 1 has another label"):
        manual.collect(chosen, project, 1, False)
