"""The catalogue of systems: every YAML is complete and true to its files; a wrong one says what is wrong."""

from __future__ import annotations

import functools
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from conftest import ROOT

from retemper import systems
from retemper.cli import main
from retemper.config.settings import Settings, parse
from retemper.config.strict_yaml import read_yaml
from retemper.core.errors import RetemperError
from retemper.data.charge import charge_of
from retemper.data.composition import composition_matrix, null_basis
from retemper.data.frames import ENERGY, FORCES, STRESS, elements, is_isolated_atom, read_frames
from retemper.evaluation.robustness.metrics import observables
from retemper.systems.listing import size
from retemper.systems.make import generator

NAMES = sorted(systems.catalogue(ROOT))
EMBEDDED = [name for name in NAMES if systems.find(name, ROOT).generator]
LARGEST = 250_000  # bytes of an embedded file


@functools.cache
def kept(name: str) -> list[Atoms]:
    return [frame for file in systems.find(name, ROOT).files for frame in read_frames(ROOT / file)]


def bound(name: str) -> list[Atoms]:
    return [frame for frame in kept(name) if not is_isolated_atom(frame)]


@pytest.mark.parametrize("name", NAMES)
def test_elements_and_labels_are_those_of_the_yaml(name: str) -> None:
    system = systems.find(name, ROOT)
    assert set(elements(kept(name))) == set(system.elements)
    assert system.about and system.licence and system.citation
    assert {frame.info["level"] for frame in kept(name)} == {system.level_of_theory}
    for frame in kept(name):
        forces = frame.arrays[system.keys.forces]
        assert np.isfinite(frame.info[system.keys.energy])
        assert forces.shape == (len(frame), 3) and np.isfinite(forces).all()
        assert np.abs(forces.sum(axis=0)).max() < 1e-3 * max(1, len(frame) ** 0.5)
        if system.keys.stress and frame.pbc.any():
            assert frame.pbc.all() and np.size(frame.info[system.keys.stress]) == 9


@pytest.mark.parametrize("name", NAMES)
def test_charge_and_multiplicity_are_those_of_the_yaml(name: str) -> None:
    """Charges agree, and the number of electrons has the parity that the multiplicity asks for."""
    system = systems.find(name, ROOT)
    for frame in bound(name):
        given = [frame.info[v] if isinstance(v, str) else v for v in (system.charge, system.multiplicity)]
        assert charge_of(frame) == given[0]
        assert (frame.numbers.sum() - given[0] - (given[1] - 1)) % 2 == 0


@pytest.mark.parametrize("name", NAMES)
def test_atomic_reference_energies_can_be_determined(name: str) -> None:
    """By the compositions, or by the free atoms of all elements."""
    free = {str(frame.symbols[0]) for frame in kept(name) if is_isolated_atom(frame)}
    numbers = sorted({int(z) for frame in kept(name) for z in frame.numbers})
    undetermined = null_basis(composition_matrix(bound(name), numbers)).shape[1]
    assert undetermined == 0 or free == set(systems.find(name, ROOT).elements)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_sets_are_small_and_have_the_generators_groups(name: str) -> None:
    system = systems.find(name, ROOT)
    module = generator(str(system.generator))
    assert (ROOT / system.files[0]).stat().st_size < LARGEST
    assert size(ROOT / system.files[0]) == (len(kept(name)), sum(map(len, kept(name))))
    assert 90 <= len(kept(name)) <= 400
    assert list(dict.fromkeys(frame.info[system.group] for frame in bound(name))) == module.groups()
    assert len(module.groups()) >= 10
    for symbol in system.elements:  # in more than one of the sets, however they are split
        assert len({frame.info[system.group] for frame in bound(name) if symbol in frame.symbols}) >= 2, symbol
    assert system.level_of_theory == module.LEVEL
    if hasattr(module, "figures"):
        for file, frames in module.figures(0).items():
            there = read_frames(ROOT / str(system.figures) / file)
            assert [a.positions.tolist() for a in there] == [a.positions.round(8).tolist() for a in frames]


@pytest.mark.parametrize("name", NAMES)
def test_sections_are_valid_settings(name: str) -> None:
    """What is printed for params.yaml gives the same sections as the methods, in a project that has the files."""
    system = systems.find(name, ROOT)
    content = read_yaml(ROOT / "params.yaml") | {"robustness": {}}
    settings = parse(Settings, content | yaml.safe_load(systems.lines_for_params(system)), "params.yaml")
    assert settings.system == name
    assert settings.dataset == system.dataset()
    assert settings.robustness == system.robustness()
    assert all((ROOT / file).is_file() for file in settings.dataset.all_files)
    assert system.dataset(max_train=7, valid=0.2).max_train == 7


def test_observables_are_the_metrics_cases() -> None:
    field = systems.System.model_json_schema()["properties"]["observables"]
    assert set(field["items"]["enum"]) == set(observables.CASES)


@pytest.mark.parametrize("name", NAMES)
def test_an_observable_has_what_it_needs_or_the_folder_to_put_it_in(name: str) -> None:
    system = systems.find(name, ROOT)
    for case in system.observables:
        assert system.oracle or "oracle" not in observables.CASES[case]
        assert system.figures or "figures" not in observables.CASES[case]
    if "barrier" in system.observables:
        assert len(read_frames(ROOT / str(system.figures) / observables.PATH)) > 1


# ------------------------------------------------------------------ what a user writes

MINE: dict[str, Any] = {
    "about": "mine",
    "elements": "H O",
    "level_of_theory": "PBE",
    "licence": "none",
    "citation": "none",
    "files": ["data/raw/mine.xyz"],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one system of its own."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "systems").mkdir()
    write(tmp_path, MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(project: Path, content: dict[str, Any]) -> None:
    (project / "systems/mine.yaml").write_text(yaml.safe_dump(content))


def test_a_users_system_is_listed_by_being_there(project: Path, capsys: pytest.CaptureFixture) -> None:
    main.main(["systems"])
    assert "not there; H O; files as they are" in capsys.readouterr().out
    (project / "data/raw").mkdir(parents=True)
    (project / "data/raw/mine.xyz").write_text("2\n\nH 0 0 0\nO 0 0 1\n\n1\n\nO 0 0 0\n")
    main.main(["systems"])
    assert "2 frames, 3 atoms" in capsys.readouterr().out
    main.main(["systems", "mine"])
    printed = capsys.readouterr().out
    lines = yaml.safe_load(printed.partition("For params.yaml:")[2])
    assert lines["system"] == "mine" and lines["dataset"]["level_of_theory"] == "PBE"


def test_every_system_is_listed(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    main.main(["systems"])
    printed = capsys.readouterr().out
    for name in NAMES:
        system = systems.find(name, ROOT)
        assert f"\n{name} " in f"\n{printed}" and system.about in printed
        assert f"{len(kept(name))} frames, {sum(map(len, kept(name)))} atoms" in printed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elemnts": "H"}, "did you mean 'elements'"),
        ({"elements": "H o"}, "pattern"),
        ({"licence": None}, "licence"),
        ({"observables": ["barier"]}, "barrier"),
        ({"generator": "nacl2"}, "did you mean 'nacl'"),
        ({"importer": "n2p", "source": "x"}, "did you mean 'n2p2'"),
        ({"importer": "n2p2"}, "needs a source"),
        ({"generator": "nacl", "importer": "n2p2", "source": "x"}, "not both"),
        ({"generator": "nacl", "files": ["a", "b"]}, "one file"),
        ({"keys": {"enrgy": "E"}}, "did you mean 'energy'"),
    ],
)
def test_a_wrong_yaml_says_what_is_wrong(project: Path, change: dict[str, Any], message: str) -> None:
    write(project, MINE | change)
    with pytest.raises(RetemperError, match=message) as error:
        systems.catalogue(project)
    assert "mine.yaml" in str(error.value)


def test_unknown_names_list_the_options(project: Path) -> None:
    with pytest.raises(RetemperError, match="did you mean 'mine'"):
        systems.find("mien", project)
    with pytest.raises(RetemperError, match="did you mean 'max_train'"):
        systems.find("mine", project).dataset(max_trian=5)


def test_units_keys_and_test_files_reach_the_dataset_section(project: Path) -> None:
    write(project, MINE | {"keys": {"energy": "E", "virial": "W"}, "energy_unit": "Ry", "test_files": ["t.xyz"]})
    dataset = systems.find("mine", project).dataset()
    assert (dataset.keys.energy, dataset.keys.forces, dataset.keys.virial) == ("E", FORCES, "W")
    assert dataset.keys.model_fields_set == {"energy", "virial"}  # what was not asked for is not required
    assert (dataset.energy_unit, dataset.all_files) == ("Ry", ["t.xyz", "data/raw/mine.xyz"])


def test_a_broken_file_has_no_size(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\n\nH 0 0 0\nH 0 0 0\n")
    with pytest.raises(RetemperError, match="line 4, after 1 frames"):
        size(tmp_path / "a.xyz")
    (tmp_path / "a.xyz").write_text("1\n\nH 0 0 0\n2\n\nH 0 0 0\n")
    with pytest.raises(RetemperError, match="line 4, after 1 frames.\n.*3 lines of a frame\n.*2 lines"):
        size(tmp_path / "a.xyz")


@pytest.mark.parametrize("name", [name for name in NAMES if systems.find(name, ROOT).keys.stress])
def test_stress_and_forces_are_the_energys_derivatives(name: str) -> None:
    """Slope of energy differences over the work of forces and stress: sign and unit, not the last digit.

    Frames of dynamics lie apart by more than the trapezoidal rule bears: 0.86 for lpsc, whose forces
    integrate to the energy difference of two frames within 1e-5 eV where more points are computed between them.
    """
    frames = [frame for frame in bound(name) if frame.pbc.all() and STRESS in frame.info]
    assert slope_of_energies(frames) == pytest.approx(1.0, abs=0.2)


def slope_of_energies(frames: list[Atoms]) -> float:
    """Energy differences of near frames of a group over the work of mean forces and stresses."""
    work, energy = [], []
    for a, b in itertools.pairwise(frames):
        if a.info["group"] != b.info["group"] or len(a) != len(b):
            continue
        cells = [frame.cell.array for frame in (a, b)]
        gradient = np.linalg.solve(sum(cells) / 2, cells[1] - cells[0])
        moved = b.get_scaled_positions(wrap=False) - a.get_scaled_positions(wrap=False)
        inner = (moved - moved.round()) @ (sum(cells) / 2)
        forces = (a.arrays[FORCES] + b.arrays[FORCES]) / 2
        stress = (np.reshape(a.info[STRESS], (3, 3)) + np.reshape(b.info[STRESS], (3, 3))) / 2
        volume = (a.get_volume() + b.get_volume()) / 2
        work.append(volume * (stress * gradient).sum() - (forces * inner).sum())
        energy.append(b.info[ENERGY] - a.info[ENERGY])
    return float(np.dot(work, energy) / np.dot(work, work))
