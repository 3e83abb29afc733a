"""Units of energies, forces and stress: planted faults on the shipped sets, and advice that is followed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms, units
from ase.io import write
from shipped_sets import MINI, asked_once, shipped

from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.data.frames import ENERGY, FORCES, STRESS
from retemper.data.units import ENERGY_UNITS, LENGTH_UNITS, Verdict, check_units, require_units
from retemper.data.units.predicted import Predict, force_slope
from retemper.models import mace
from retemper.prepare import dataset as stage
from retemper.prepare import e0s
from retemper.prepare.predictor import predictor
from retemper.records.dataset import DatasetManifest

HARTREE, BOHR, KCAL = units.Hartree, units.Bohr, units.kcal / units.mol
ELEMENTS = "H Li B C N O F Na Mg Al Si P S Cl K Ca Ti Cu Zn Ge Br I"
SHIPPED = ("nacl", "molecules", "sn2", "spice", "ice", "lpsc")


def planted(
    frames: Sequence[Atoms], energy: float = 1, force: float = 1, per_atom: bool = False, stress: float | None = None
) -> list[Atoms]:
    """Copies with labels in other units: factors on energies, forces and stress (by default that of the energies)."""
    changed = []
    for frame in frames:
        new = frame.copy()
        new.info[ENERGY] *= energy / (len(frame) if per_atom else 1)
        new.arrays[FORCES] = new.arrays[FORCES] * force
        if STRESS in new.info:
            new.info[STRESS] = np.asarray(new.info[STRESS]) * (abs(energy) if stress is None else stress)
        changed.append(new)
    return changed


@pytest.fixture(scope="module")
def mini() -> Predict:
    return asked_once()


def one_a_formula(frames: Sequence[Atoms]) -> list[Atoms]:
    """The frame with the largest force of each formula; no free atoms."""
    largest: dict[str, Atoms] = {}
    for frame in sorted(frames, key=lambda frame: float(np.abs(frame.arrays[FORCES]).max())):
        largest[frame.get_chemical_formula()] = frame
    return [frame for frame in largest.values() if len(frame) > 1]


def follows(verdict: Verdict, energy: float, force: float, per_atom: bool) -> bool:
    """Whether labels planted with these factors are right within a tenth once the advice is followed."""
    correction = verdict.correction
    assert correction is not None
    energies = math.log(abs(energy)) + correction.units.log_energy
    forces = math.log(abs(force)) + correction.units.log_force
    signs = correction.energy_sign * energy > 0 and correction.force_sign * force > 0
    return signs and abs(energies) < 0.1 and abs(forces) < 0.1 and correction.units.per_atom == per_atom


def cases() -> list[tuple[str, float, float, bool]]:
    """Each unit of energy and of length on all labels, on forces alone and on energies alone; signs."""
    rows = []
    for name, energy in ENERGY_UNITS.items():
        for length, value in LENGTH_UNITS.items():
            if (name, length) != ("eV", "Angstrom"):
                rows.append((f"{name}, {name}/{length}", 1 / energy, value / energy, False))
                rows.append((f"eV, {name}/{length}", 1.0, value / energy, False))
        if name != "eV":
            rows.append((f"{name}, eV/Angstrom", 1 / energy, 1.0, False))
    rows += [("eV per atom", 1.0, 1.0, True), ("Hartree per atom", 1 / HARTREE, 1.0, True)]
    rows += [("gradients", 1.0, -1.0, False), ("Hartree and gradients", 1 / HARTREE, -BOHR / HARTREE, False)]
    return rows


@pytest.mark.parametrize("name", SHIPPED)
def test_right_units_of_shipped_sets_pass_with_few_and_many_frames(name: str, mini: Predict) -> None:
    frames = shipped(name)
    some = [frames[k] for k in sorted(np.random.default_rng(3).permutation(len(frames))[:15])]
    multi = [frame for frame in frames if len(frame) > 1]
    ten = [multi[k] for k in np.random.default_rng(1).permutation(len(multi))[:10]]
    for part in (list(frames), some, some[:5], ten, one_a_formula(frames), [f for f in frames if len(f) > 1]):
        for predict in (None, mini):
            verdict = check_units(part, "eV", "Angstrom", predict=predict)
            assert not verdict.message
    assert not check_units(frames, "eV", "Angstrom", predict=mini).untested


@pytest.mark.parametrize("name", SHIPPED)
def test_energies_beside_forces_of_another_unit_stop(name: str, mini: Predict) -> None:
    """Energies in Hartree, kcal/mol or per atom beside forces in eV/A."""
    frames = shipped(name)
    for energy, per_atom, unit in ((1 / HARTREE, False, "Hartree"), (1 / KCAL, False, "kcal/mol"), (1, True, "eV")):
        verdict = check_units(planted(frames, energy, 1, per_atom), "eV", "Angstrom", predict=mini)
        assert verdict.wrong, unit
        assert verdict.correction is not None
        assert (verdict.correction.units.energy, verdict.correction.units.per_atom) == (unit, per_atom)
        assert verdict.correction.units.log_force == 0


@pytest.mark.parametrize("name", ["spice", "molecules"])
def test_energies_in_hartree_with_one_frame_a_molecule_stop(name: str, mini: Predict) -> None:
    single = one_a_formula(shipped(name))
    verdict = check_units(planted(single, 1 / HARTREE, 1), "eV", "Angstrom", predict=mini)
    assert verdict.wrong
    assert "Hartree" in verdict.message


@pytest.mark.parametrize("name", SHIPPED)
def test_fifteen_frames_of_gradients_stop(name: str, mini: Predict) -> None:
    frames = shipped(name)
    some = [frames[k] for k in sorted(np.random.default_rng(3).permutation(len(frames))[:15])]
    verdict = check_units(planted(some, 1, -1), "eV", "Angstrom", predict=mini)
    assert verdict.wrong
    assert "gradients" in verdict.message


@pytest.mark.slow
def test_advice_leads_to_right_labels(mini: Predict) -> None:
    """A third of `cases` on each shipped set, with half of its frames and with fifteen: no advice is wrong."""
    count: Counter[str] = Counter()
    for k, name in enumerate(SHIPPED):
        every = shipped(name)
        some = tuple(every[k] for k in sorted(np.random.default_rng(3).permutation(len(every))[:15]))
        for frames in (every[::2], some):
            for case, energy, force, per_atom in cases()[k % 3 :: 3]:
                verdict = check_units(planted(frames, energy, force, per_atom), "eV", "Angstrom", predict=mini)
                if not verdict.message:
                    kind = "untested" if verdict.untested else "missed"
                elif verdict.correction is None:
                    kind = "open"
                else:
                    kind = "right" if follows(verdict, energy, force, per_atom) else "wrong"
                assert kind != "wrong", (name, len(frames), case, verdict.message)
                near = max(abs(math.log(abs(energy))), abs(math.log(abs(force)))) < 0.7 and force > 0 and not per_atom
                assert kind != "missed" or near, (name, len(frames), case, verdict.evidence)
                count[kind] += 1
    assert count["right"] > 0.35 * sum(count.values())


def test_what_nothing_can_test_is_said() -> None:
    """Molecules, one frame each, no foundation: nothing ties energies to forces."""
    single = one_a_formula(shipped("spice"))
    judged = require_units({"mine": single}, "eV", "Angstrom")
    assert any("energies" in text and "Hartree" in text for text in judged.untested["mine"])
    assert any("not tested" in text for text in judged.warnings)


def test_stress_of_other_sign_or_unit_is_seen(mini: Predict) -> None:
    frames = shipped("ice")
    sign = check_units(planted(frames, stress=-1), "eV", "Angstrom", predict=mini)
    assert sign.wrong
    assert "by -1" in sign.fix
    for name, factor in (("GPa", units.GPa), ("kbar", 0.1 * units.GPa)):
        verdict = check_units(planted(frames, stress=1 / factor), "eV", "Angstrom", predict=mini)
        assert verdict.wrong
        assert f"from {name} " in verdict.fix
    for name, factor in (("GPa", units.GPa), ("kbar", 0.1 * units.GPa)):  # few strained copies: the foundation speaks
        verdict = check_units(planted(shipped("lpsc"), stress=1 / factor), "eV", "Angstrom", predict=mini)
        assert verdict.wrong
        assert name in verdict.message


def test_a_foundation_without_a_clue_is_not_heard(tiny_model: Path) -> None:
    """Untrained weights: their forces do not follow the labels, and say nothing."""
    frames = [frame for frame in shipped("nacl") if len(frame) > 1]
    predicted = predictor(tiny_model, None, "cpu")(frames)
    assert predicted is not None
    assert force_slope(predicted) is None
    assert not check_units(frames, "eV", "Angstrom", predict=predictor(tiny_model, None, "cpu")).message


Make = Callable[..., Project]


@pytest.fixture
def project(tmp_path: Path) -> Make:
    """A project folder with data files and the embedded foundation, or one that is not there."""

    def make(files: dict[str, Sequence[Atoms]], weights: str = str(MINI), **dataset: Any) -> Project:
        for name, frames in files.items():
            write(tmp_path / name, list(frames), format="extxyz")
        (tmp_path / "foundations").mkdir(exist_ok=True)
        entry = {"about": "a", "level_of_theory": "PBE", "licence": "MIT", "citation": "c", "elements": ELEMENTS}
        entry |= {"file": weights, "sha256": sha256(MINI)}
        (tmp_path / "foundations/foundations.yaml").write_text(yaml.safe_dump({"mini": entry}))
        content = {
            "system": "nacl",
            "foundation": "mini",
            "strategies": ["naive"],
            "seeds": [1],
            "dataset": {"files": list(files), "level_of_theory": "GFN2-xTB", "group": "group", **dataset},
        }
        return Project(tmp_path, Settings.model_validate(content))

    return make


def test_advice_in_the_settings_is_followed_to_the_same_data(project: Make, tmp_path: Path) -> None:
    frames = shipped("sn2")
    wrong = planted(frames, 1 / KCAL, 1 / KCAL)
    with pytest.raises(RetemperError, match="wrong units") as error:
        stage.run(project({"a.extxyz": wrong}), out=tmp_path / "out")
    assert "dataset.energy_unit: kcal/mol and dataset.length_unit: Angstrom" in str(error.value)
    made = project({"a.extxyz": wrong}, energy_unit="kcal/mol", length_unit="Angstrom")
    manifest = stage.run(made, out=tmp_path / "out")
    assert manifest.units.untested == {}
    lowest = min(part.energy_per_atom.min for part in manifest.sets.values() if part.energy_per_atom)
    assert lowest == pytest.approx(min(frame.info[ENERGY] / len(frame) for frame in frames), rel=1e-6)


def test_two_files_in_different_units_are_to_be_converted(project: Make, tmp_path: Path) -> None:
    """The settings hold for all files: what is true of one alone is no advice."""
    frames = shipped("nacl")
    files = {"a.extxyz": frames[::2], "b.extxyz": planted(frames[1::2], 1 / HARTREE, BOHR / HARTREE)}
    with pytest.raises(RetemperError, match=r"b\.extxyz: wrong units") as error:
        stage.run(project(files), out=tmp_path / "out")
    assert "in the file from Hartree to eV" in str(error.value)
    assert "params.yaml" not in str(error.value)


def test_the_e0s_stage_asks_a_foundation_that_the_dataset_stage_had_not(project: Make, tmp_path: Path) -> None:
    """Weights that arrive later: the dataset stage says what is open, the e0s stage refuses it."""
    frames = planted(one_a_formula(shipped("molecules")), 1 / HARTREE, 1)
    made = project({"a.extxyz": frames}, weights="later.model", group="composition")
    manifest = stage.run(made)
    assert "energies" in " ".join(manifest.units.untested["a.extxyz"])
    assert any("not tested" in text for text in manifest.warnings)
    assert DatasetManifest.read(made.manifest) == manifest
    later = project({"a.extxyz": frames}, group="composition")
    with pytest.raises(RetemperError, match="wrong units"):
        e0s.run(later)


def test_predictions_are_of_a_bounded_sample() -> None:
    frames = list(shipped("nacl")) * 20
    predicted = predictor(MINI, None, "cpu")(frames)
    assert predicted is not None
    assert len(predicted.frames) <= 60
    assert sum(map(len, predicted.frames)) < 2600
    own = mace.atomic_energies(MINI)
    first = predicted.frames[0]
    assert predicted.binding[0] + predicted.energy[0] == pytest.approx(
        sum(own[int(z)] for z in first.numbers), abs=1e-3
    )
