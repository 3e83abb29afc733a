"""Stress labels of the wrong sign, kind, order or unit: named, or said to be not tested; never taken in silence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.data import chemical_symbols
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress
from shipped_sets import asked_once, shipped

from retemper.config.project import Project
from retemper.config.settings import Dataset, Settings
from retemper.data.frames import STRESS
from retemper.data.labels import map_labels
from retemper.data.units import check_units
from retemper.data.units.predicted import Predict
from retemper.prepare import dataset as stage
from retemper.records.dataset import DatasetManifest

hostile = pytest.mark.hostile("stress")
DATASET = Dataset(files=["a"], level_of_theory="x")
UNITS = {"eV/A^3": 1.0, "GPa": units.GPa, "kbar": 0.1 * units.GPa}
FORMS, ORDERS = ("stress", "other sign", "virial"), ("Voigt", "VASP", "nine")
CASES = [(form, order, unit) for form in FORMS for order in ORDERS for unit in UNITS]
RIGHT = ("stress", ("Voigt", "nine"), "eV/A^3")


@pytest.fixture(scope="module")
def mini() -> Predict:
    return asked_once()


def written(frames: Sequence[Atoms], form: str, order: str, unit: str) -> list[Atoms]:
    """The frames with their stress as a file may have it, read as ``REF_stress``."""
    copies = []
    for frame in frames:
        new = frame.copy()
        if STRESS in new.info:
            stress = np.reshape(new.info[STRESS], (3, 3)) / UNITS[unit]
            stress = {"stress": 1, "other sign": -1, "virial": -frame.cell.volume}[form] * stress
            six = full_3x3_to_voigt_6_stress(stress)
            new.info[STRESS] = {"Voigt": six, "VASP": six[[0, 1, 2, 5, 3, 4]], "nine": stress.ravel()}[order]
        copies.append(new)
    return map_labels(copies, DATASET, "a").frames


@hostile
@pytest.mark.parametrize(("form", "order", "unit"), CASES)
def test_no_form_of_stress_is_taken_in_silence(form: str, order: str, unit: str, mini: Predict) -> None:
    """On cells without strained copies; the foundation follows their stress with a cosine of 0.64."""
    verdict = check_units(written(shipped("lpsc"), form, order, unit), "eV", "Angstrom", predict=mini)
    if form == RIGHT[0] and order in RIGHT[1] and unit == RIGHT[2]:
        assert not verdict.message and not verdict.untested
        assert any("stress is" in text for text in verdict.evidence)
        assert any("components off the diagonal" in text for text in verdict.evidence)
        return
    assert verdict.wrong or any("stress: its sign is not tested" in text for text in verdict.untested)
    if (form, order, unit) == ("stress", "VASP", "eV/A^3"):
        assert "xx yy zz xy yz zx" in verdict.message and "xx yy zz yz xz xy" in verdict.fix
    if form == "other sign" and unit == "eV/A^3" and order != "VASP":
        assert "multiply the stress by -1" in verdict.fix


@hostile
@pytest.mark.parametrize(("form", "order", "unit"), CASES[::2])
def test_without_a_foundation_what_is_not_tested_says_so(form: str, order: str, unit: str) -> None:
    verdict = check_units(written(shipped("lpsc"), form, order, unit), "eV", "Angstrom")
    said = " ".join(verdict.untested)
    assert (
        verdict.wrong or verdict.message or ("sign is not tested" in said and "off the diagonal is not tested" in said)
    )


@hostile
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("order", ORDERS)
def test_strained_copies_see_the_sign_without_a_foundation(form: str, order: str) -> None:
    verdict = check_units(written(shipped("ice"), form, order, "eV/A^3"), "eV", "Angstrom")
    assert verdict.wrong == (form != "stress")
    if not verdict.wrong:
        assert verdict.untested[-1] == "stress: the order of its components off the diagonal is not tested"
    if form == "virial" and order != "VASP":
        assert "set dataset.keys.virial" in verdict.fix


def staged(root: Path, frames: Sequence[Atoms], **dataset: Any) -> DatasetManifest:
    """The manifest of the dataset stage on these frames, with a foundation that is not on the machine."""
    (root / "foundations").mkdir(parents=True)
    elements = " ".join(chemical_symbols[1:90])
    entry = f"{{about: a, level_of_theory: x, licence: x, citation: x, elements: {elements}, file: none}}"
    (root / "foundations/foundations.yaml").write_text(f"small: {entry}\n")
    write(root / "data.xyz", list(frames), format="extxyz")
    content = {"system": "s", "foundation": "small", "strategies": ["naive"], "seeds": [1]}
    data = {"files": ["data.xyz"], "level_of_theory": "x", "max_rejected": 0.5, **dataset}
    return stage.run(Project(root, Settings.model_validate({**content, "dataset": data})))


@hostile
def test_the_terminal_and_the_manifest_say_not_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = staged(tmp_path, shipped("lpsc"))
    assert "stress: its sign is not tested" in manifest.units.untested["data.xyz"]
    assert "stress: its sign is not tested" in capsys.readouterr().out


@hostile
@pytest.mark.parametrize("gigapascal", [8000.0, -8000.0, 1500.0])
def test_absurd_stress_is_rejected(gigapascal: float, tmp_path: Path) -> None:
    frames = [frame.copy() for frame in shipped("lpsc")]
    broken = [k for k, frame in enumerate(frames) if STRESS in frame.info][3]
    frames[broken].info[STRESS] = (np.eye(3) * gigapascal * units.GPa).ravel()
    manifest = staged(tmp_path, frames)
    assert manifest.rejected == {"dataset.max_stress": 1}
