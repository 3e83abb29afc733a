"""Oracles: every one by its contract, and those whose program is here by its numbers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from oracle_programs import NEEDED, WATER, label

from retemper.active import plugins
from retemper.config.settings import Plugin
from retemper.core.errors import RetemperError
from retemper.data.charge import State


@pytest.mark.parametrize("name", plugins.names("oracles"))
def test_every_oracle(name: str) -> None:
    """It has options, names its level of theory, and makes a calculator or is done by hand."""
    module, options = plugins.load("oracles", Plugin(name=name, options=NEEDED.get(name, {})))
    assert isinstance(module.level(options), str) and module.level(options)
    assert callable(getattr(module, "calculator", None)) != getattr(module, "MANUAL", False)
    assert module.__doc__


def test_xtb_is_tblite(tmp_path: Path) -> None:
    from tblite.ase import TBLite

    for method in ("GFN2-xTB", "GFN1-xTB"):
        found = label("xtb", {"method": method}, WATER, tmp_path / "x")
        work = WATER.copy()
        work.calc = TBLite(method=method, verbosity=0)
        assert found.label is not None
        assert found.label.energy == pytest.approx(work.get_potential_energy(), abs=1e-8)
        np.testing.assert_allclose(found.label.forces, work.get_forces(), atol=1e-7)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("name", "info"), [("OH", {"charge": -1}), ("O2", {"spin": 3}), ("OH", {})])
def test_xtb_takes_charge_and_spin(name: str, info: dict[str, int], tmp_path: Path) -> None:
    from tblite.ase import TBLite

    atoms = molecule(name)
    atoms.info |= info
    found = label("xtb", {}, atoms, tmp_path / "x").label
    work = molecule(name)
    multiplicity = info.get("spin", 1 if "charge" in info else 2)
    work.calc = TBLite(method="GFN2-xTB", charge=info.get("charge", 0), multiplicity=multiplicity, verbosity=0)
    assert found is not None
    assert found.energy == pytest.approx(work.get_potential_energy(), abs=1e-8)


def test_the_foundation_teaches_what_it_predicts(tmp_path: Path) -> None:
    from conftest import ROOT

    from retemper.models.predict import predict

    found = label("foundation", {"name": "mini"}, WATER, tmp_path / "x").label
    right = predict(ROOT / "foundations/mini.model", [WATER], backend="torch")
    assert found is not None
    assert found.energy == pytest.approx(right.energy[0], abs=1e-9)
    np.testing.assert_allclose(found.forces, right.forces[0], atol=1e-9)


def test_a_foundation_that_knows_no_charge_refuses_ions(tmp_path: Path) -> None:
    for info in ({"charge": -1}, {"spin": 2}):
        atoms = molecule("OH")
        atoms.info |= info
        found = label("foundation", {"name": "mini"}, atoms, tmp_path / "x")
        assert found.kind == "refused" and "does not know" in found.reason


def test_a_foundation_that_knows_charge_and_spin_is_told(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import run_files
    from conftest import build_tiny

    from retemper.models.predict import predict

    classes = {"type": "categorical", "per": "graph", "num_classes": 11, "emb_dim": 4, "offset": 5}
    specs = dict.fromkeys(("total_charge", "total_spin"), classes)
    model = build_tiny(tmp_path / "embeds.model", ["Default"], embedding_specs=specs)
    run_files.write_project(tmp_path / "project", model)
    monkeypatch.setenv("RETEMPER_ROOT", str(tmp_path / "project"))
    states = [{"charge": -1, "spin": 1}, {"charge": 0, "spin": 2}, {"charge": 0, "spin": 4}]
    frames = []
    for info in states:
        frames.append(molecule("OH"))
        frames[-1].info |= info
    right = predict(model, frames, backend="torch").energy
    assert np.unique(right.round(6)).size == 3
    del frames[0].info["spin"], frames[1].info["spin"]  # the lowest
    for atoms, energy in zip(frames, right, strict=True):
        found = label("foundation", {"name": "tiny"}, atoms, tmp_path / "x")
        assert found.label is not None, found.reason
        assert found.label.energy == pytest.approx(energy, abs=1e-9)


def test_a_calculator_that_reads_charge_is_told(tmp_path: Path) -> None:
    """Energies of the calculator in `faulty` are EMT's plus the charge and the multiplicity in eV."""
    options = {"calculator": "faulty:Charged()", "level_of_theory": "EMT"}
    energy = {}
    for charge in (0, 1):
        ion = Atoms("Cu2", [[0, 0, 0], [2.5, 0, 0]], info={"charge": charge, "forgotten": 1})
        found = label("ase", {**options, "reads_info": True}, ion, tmp_path / "x")
        assert found.label is not None, found.reason
        energy[charge] = found.label.energy
    assert energy[1] - energy[0] == pytest.approx(2.0)  # one more charge, a doublet for a singlet
    refused = label("ase", options, ion, tmp_path / "x")
    assert refused.kind == "refused" and "reads_info" in refused.reason


@pytest.mark.skipif(find_spec("pyscf") is None, reason="pyscf is not installed")
def test_pyscf_gradient_is_the_energys(tmp_path: Path) -> None:
    options = {"xc": "PBE", "basis": "sto-3g", "grid": 5}
    found = label("pyscf", options, WATER, tmp_path / "x").label
    energies = []
    for step in (-0.005, 0.005):
        moved = WATER.copy()
        moved.positions[1, 0] += step
        one = label("pyscf", options, moved, tmp_path / "x").label
        assert one is not None
        energies.append(one["energy"])
    assert found is not None
    assert found.forces[1, 0] == pytest.approx(-(energies[1] - energies[0]) / 0.01, abs=2e-3)


def test_molecule_codes_refuse_cells(tmp_path: Path) -> None:
    for name in ("pyscf", "orca"):
        found = label(name, NEEDED.get(name, {}), bulk("NaCl", "rocksalt", 5.6), tmp_path / "x")
        assert found.kind == "refused" and "for molecules" in found.reason
    charged = Atoms("NaCl", [[0, 0, 0], [2.5, 0, 0]], info={"charge": 1})
    assert label("ase", NEEDED["ase"], charged, tmp_path / "x").kind == "refused"


def test_levels_of_theory() -> None:
    level = {}
    for name in ("xtb", "foundation", "pyscf", "orca"):
        module, options = plugins.load("oracles", Plugin(name=name, options=NEEDED.get(name, {})))
        level[name] = module.level(options)
    assert level == {"xtb": "GFN2-xTB", "foundation": "PBE (SevenNet-0)", "pyscf": "PBE/def2-SVP", "orca": "PBE"}


def test_pyscf_is_open_shell_where_it_must_be() -> None:
    module, options = plugins.load("oracles", Plugin(name="pyscf"))
    made = module.calculator(options, molecule("OH"), State(0, 2, False), Path("."))
    assert made.state.multiplicity == 2
    with pytest.raises(RetemperError, match="basis_set"):
        plugins.load("oracles", Plugin(name="pyscf", options={"basis_set": "x"}))
