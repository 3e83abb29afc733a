"""Importers against files that others' writers, or hands, made; units against numbers typed here."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.runner.writer import write_runnerdata
from conftest import ROOT

from retemper import systems
from retemper.config.project import Project
from retemper.config.settings import Settings, parse, read_yaml
from retemper.core.errors import RetemperError
from retemper.data.frames import ENERGY, FORCES, is_isolated_atom, read_frames
from retemper.prepare import dataset
from retemper.systems.importers import n2p2, spice
from retemper.systems.make import make

HARTREE, BOHR = 27.211386245988, 0.529177210903  # eV, A: CODATA 2018
BLOCK = """begin
comment made by hand
lattice 10.0 0.0 0.0
lattice 1.0 9.0 0.0
lattice 0.0 2.0 8.0
atom 0.0 0.0 0.0 H 0.1 0.0 0.01 -0.02 0.03
atom 1.4 0.0 0.5 Cl -0.1 0.0 -0.01 0.02 -0.03
energy -1.25
charge 0.0
end
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def labelled(frames: Sequence[Atoms]) -> list[Atoms]:
    """Copies with a calculator that holds the labels, as ASE's writers want them."""
    copies = []
    for frame in frames:
        copy = Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=frame.pbc)
        copy.calc = SinglePointCalculator(copy, energy=frame.info[ENERGY], forces=frame.arrays[FORCES])
        copies.append(copy)
    return copies


def same(found: Atoms, frame: Atoms, length: float = 1e-6) -> None:
    assert found.symbols.get_chemical_formula("reduce") == frame.symbols.get_chemical_formula("reduce")
    assert found.pbc.tolist() == frame.pbc.tolist()
    assert found.cell.array == pytest.approx(frame.cell.array, abs=length)
    assert found.positions == pytest.approx(frame.positions, abs=length)
    assert found.info[ENERGY] == pytest.approx(frame.info[ENERGY], abs=1e-5)
    assert found.arrays[FORCES] == pytest.approx(frame.arrays[FORCES], abs=1e-5)


# ------------------------------------------------------------------ n2p2


def test_a_block_by_hand(tmp_path: Path) -> None:
    (atoms,) = n2p2.frames(written(tmp_path / "input.data", BLOCK), n2p2.Options())
    assert str(atoms.symbols) == "HCl" and atoms.pbc.all()
    assert atoms.positions[1] == pytest.approx(np.array([1.4, 0, 0.5]) * BOHR)
    assert atoms.cell.array == pytest.approx(np.array([[10, 0, 0], [1, 9, 0], [0, 2, 8]]) * BOHR)
    assert atoms.info[ENERGY] == pytest.approx(-1.25 * HARTREE)
    assert atoms.arrays[FORCES][0] == pytest.approx(np.array([0.01, -0.02, 0.03]) * HARTREE / BOHR)
    assert atoms.info["comment"] == "made by hand" and not {"charge", "total_charge"} & set(atoms.info)


def test_other_units_are_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "input.data", BLOCK.replace("charge 0.0", "charge -1"))
    (atoms,) = n2p2.frames(path, n2p2.Options(length_unit="Angstrom", energy_unit="eV"))
    assert (atoms.positions[1, 0], atoms.info[ENERGY], atoms.arrays[FORCES][0, 2]) == (1.4, -1.25, 0.03)
    assert atoms.info["total_charge"] == -1


def test_what_ases_writer_wrote_comes_back(tmp_path: Path) -> None:
    """ASE's writer of the same format, with its own constants; free and periodic structures."""
    frames = [frame for frame in read_frames(ROOT / "data/raw/nacl.extxyz.xz") if not is_isolated_atom(frame)][:20]
    for k, frame in enumerate(frames[10:]):
        frame.set_cell([[20.0 + k, 0, 0], [3, 19, 0], [-1, 2, 18]])
        frame.pbc = True
    with (tmp_path / "input.data").open("w") as file:
        write_runnerdata(file, labelled(frames), fmt="24.16f")
    found = list(n2p2.frames(tmp_path / "input.data", n2p2.Options()))
    assert len(found) == 20 and sum(atoms.pbc.all() for atoms in found) == 10
    for atoms, frame in zip(found, frames, strict=True):
        same(atoms, frame)


def test_the_real_set_in_its_own_format(tmp_path: Path, real_data: Path) -> None:
    frames = read_frames(real_data / "real/nacl_water_MP2_gen2.extxyz")[:10]
    with (tmp_path / "input.data").open("w") as file:
        write_runnerdata(file, labelled(frames), fmt="24.16f")
    found = list(n2p2.frames(tmp_path / "input.data", n2p2.Options()))
    for atoms, frame in zip(found, frames, strict=True):
        assert atoms.pbc.all()
        same(atoms, frame)


def test_columns_in_another_order(tmp_path: Path) -> None:
    text = "begin position(3) element force(3)\natom 0 0 1 O 0.1 0.2 0.3\nenergy -75\nend\n"
    (atoms,) = n2p2.frames(written(tmp_path / "input.data", text), n2p2.Options())
    assert atoms.arrays[FORCES][0] == pytest.approx(np.array([0.1, 0.2, 0.3]) * HARTREE / BOHR)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("end\n", "", 1, "ends with 'end'"),
        ("energy -1.25\n", "", 1, "atoms and an energy"),
        ("energy -1.25", "energy abc", 8, "energy"),
        ("lattice 0.0 2.0 8.0\n", "", 1, "three lattice vectors"),
        (" -0.01 0.02 -0.03", " -0.01 0.02", 7, "atom"),
        ("Cl", "Xq", 7, "atom"),
        ("comment", "coment", 2, "lattice, atom"),
        ("begin\n", "", 1, "'begin'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    path = written(tmp_path / "input.data", BLOCK.replace(old, new))
    with pytest.raises(RetemperError, match=f"line {line}:.*\n.*{message}"):
        list(n2p2.frames(path, n2p2.Options()))


def test_a_block_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    """The first structure comes although the second is broken: the file is not read whole."""
    frames = n2p2.frames(written(tmp_path / "input.data", BLOCK + BLOCK.replace("end\n", "")), n2p2.Options())
    assert len(next(frames)) == 2
    with pytest.raises(RetemperError, match="line 11"):
        next(frames)


# ------------------------------------------------------------------ SPICE


def spice_file(path: Path, molecules: dict[str, tuple[str, str, list[Atoms]]], **change: Any) -> Path:
    """HDF5 as SPICE's downloader writes it; `change` renames fields (None: left out) or units."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, (subset, smiles, frames) in molecules.items():
            group = file.create_group(name)
            group.create_dataset("subset", data=[subset], dtype=h5py.string_dtype())
            group.create_dataset("smiles", data=[smiles], dtype=h5py.string_dtype())
            group.create_dataset("atomic_numbers", data=frames[0].numbers, dtype=np.int16)
            fields = {
                "conformations": ([a.positions / BOHR for a in frames], np.float32, "bohr"),
                "dft_total_energy": ([a.info[ENERGY] / HARTREE for a in frames], np.float64, "hartree"),
                "dft_total_gradient": (
                    [-a.arrays[FORCES] / (HARTREE / BOHR) for a in frames],
                    np.float32,
                    "hartree/bohr",
                ),
            }
            for field, (values, dtype, unit) in fields.items():
                if change.get(field, True) is not None:
                    made = group.create_dataset(field, data=np.array(values), dtype=dtype)
                    made.attrs["units"] = change.get("unit", unit)
    return path


@pytest.fixture(scope="module")
def molecules() -> dict[str, tuple[str, str, list[Atoms]]]:
    """Two molecules of the embedded set as two subsets; the second is said to be charged."""
    frames = read_frames(ROOT / "data/raw/molecules.extxyz.xz")
    of = {name: [a for a in frames if a.info["group"] == name] for name in ("methanol", "glycine")}
    pubchem, dipeptides = (f"SPICE {kind} Single Points Dataset v1.3" for kind in ("PubChem Set 1", "Dipeptides"))
    return {
        "103147721": (pubchem, "[C:1]([O:2][H:6])([H:3])([H:4])[H:5]", of["methanol"]),
        "gly": (dipeptides, "[N+:1]([H:2])([H:3])([H:4])[C:5]", of["glycine"]),
    }


def test_spice_in_ev_and_angstrom(tmp_path: Path, molecules: dict) -> None:
    found = list(spice.frames(spice_file(tmp_path / "SPICE.hdf5", molecules), spice.Options()))
    kept = [frame for _, _, frames in molecules.values() for frame in frames]
    for atoms, frame in zip(found, kept, strict=True):
        same(atoms, frame)
    assert {(a.info["group"], a.info["total_charge"]) for a in found} == {("spice:103147721", 0), ("spice:gly", 1)}
    assert found[0].info["config_type"].startswith("SPICE PubChem")


def test_spice_by_subset_charge_and_number(tmp_path: Path, molecules: dict) -> None:
    path = spice_file(tmp_path / "SPICE.hdf5", molecules)

    def groups(**options: Any) -> list[str]:
        return [str(a.info["group"]) for a in spice.frames(path, spice.Options(**options))]

    assert set(groups(subsets=["Dipeptides"])) == {"spice:gly"}
    assert set(groups(neutral=True)) == {"spice:103147721"}
    assert groups(max_conformations=2) == ["spice:103147721"] * 2 + ["spice:gly"] * 2


def test_spice_without_gradients_or_in_other_units(tmp_path: Path, molecules: dict) -> None:
    path = spice_file(tmp_path / "a.hdf5", molecules, dft_total_gradient=None)
    with pytest.raises(RetemperError, match="molecule 103147721 has no dft_total_gradient"):
        list(spice.frames(path, spice.Options()))
    path = spice_file(tmp_path / "b.hdf5", molecules, unit="angstrom")
    with pytest.raises(RetemperError, match="is in angstrom"):
        list(spice.frames(path, spice.Options()))
    with pytest.raises(RetemperError, match="HDF5"):
        list(spice.frames(written(tmp_path / "c.hdf5", "text"), spice.Options()))


@pytest.mark.parametrize(
    "smiles",
    [
        "[N+:1]([H:2])([H:3])([H:4])[H:5]",
        "[O-:1][C:2](=[O:3])[H:4]",
        "[Ca+2:1]",
        "[Mg++]",
        "[Cl-:1].[Na+:2]",
        "[C@@H:1]([N+:2])([O-:3])[C:4]",
        "[13CH3-]",
        "[O-:1][P:2](=[O:3])([O-:4])[O-:5]",
        "[H:1]/[C:2]([Br:3])=[C:4](/[H:5])[I:6]",
    ],
)
def test_formal_charge_is_rdkits(smiles: str) -> None:
    chem = pytest.importorskip("rdkit.Chem")
    assert spice.formal_charge(smiles) == chem.GetFormalCharge(chem.MolFromSmiles(smiles, sanitize=False))


# ------------------------------------------------------------------ from a YAML to the data set


def test_one_yaml_from_the_real_format_to_the_dataset_stage(tmp_path: Path) -> None:
    """A user's input.data becomes extxyz through the YAML, and training, validation and test sets."""
    frames = read_frames(ROOT / "data/raw/nacl.extxyz.xz")
    with (tmp_path / "input.data").open("w") as file:
        write_runnerdata(file, labelled(frames), fmt="24.16f")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    for folder in ("foundations", "systems"):
        (tmp_path / folder).mkdir()
    shutil.copy(ROOT / "foundations/foundations.yaml", tmp_path / "foundations")
    content = {
        "about": "aqueous NaCl",
        "elements": "H O Na Cl",
        "level_of_theory": "GFN2-xTB",
        "licence": "MIT",
        "citation": "none",
        "files": ["data/raw/mine.extxyz.xz"],
        "keys": {"stress": None},
        "importer": "n2p2",
        "source": "input.data",
    }
    (tmp_path / "systems/mine.yaml").write_text(yaml.safe_dump(content))
    system = systems.find("mine", tmp_path)
    path = make(system, tmp_path, tmp_path)
    for atoms, frame in zip(read_frames(path), frames, strict=True):
        same(atoms, frame)
    settings = read_yaml(ROOT / "params.yaml") | yaml.safe_load(systems.lines_for_params(system))
    manifest = dataset.run(Project(tmp_path, parse(Settings, settings, "params.yaml")), out=tmp_path / "out")
    assert manifest.frames_read == len(frames)
    assert not read_frames_if_any(tmp_path / "out/rejected.extxyz")


def read_frames_if_any(path: Path) -> list[Atoms]:
    return read_frames(path) if path.stat().st_size else []


def test_a_wrong_option_or_a_missing_source_says_so(tmp_path: Path) -> None:
    content = {"name": "mine", "about": "", "elements": "H", "level_of_theory": "x", "licence": "x", "citation": "x"}
    content |= {"files": ["a.xyz"], "source": "input.data"}
    system = systems.System.model_validate(content | {"importer": {"name": "n2p2", "options": {"lenght_unit": "nm"}}})
    with pytest.raises(RetemperError, match="did you mean 'length_unit'"):
        make(system, tmp_path, tmp_path)
    system = systems.System.model_validate(content | {"importer": "n2p2"})
    with pytest.raises(RetemperError, match="input.data does not exist"):
        make(system, tmp_path, tmp_path)
    (tmp_path / "input.data").write_text("\n")
    with pytest.raises(RetemperError, match="has no structure"):
        make(system, tmp_path, tmp_path)
    assert not (tmp_path / "a.xyz").exists()
