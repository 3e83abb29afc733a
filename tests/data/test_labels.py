"""Label keys, units, and the test whether declared units can be true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.constants
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError
from retemper.data.frames import ENERGY, FORCES, STRESS
from retemper.data.labels import as_matrix, is_free_atom, map_labels
from retemper.data.units import check_units, energy_factor, length_factor, require_units
from retemper.data.units.force_laws import badger
from retemper.data.units.measurements import all_electron_energy

HARTREE, BOHR = units.Hartree, units.Bohr
KCAL, KJ = units.kcal / units.mol, units.kJ / units.mol


def settings(**changes: object) -> Dataset:
    return Dataset.model_validate({"files": ["a.extxyz"], "level_of_theory": "test", **changes})


def water(**info: object) -> Atoms:
    atoms = molecule("H2O")
    atoms.info |= {"REF_energy": -10.0, **info}
    atoms.arrays["REF_forces"] = np.arange(9.0).reshape(3, 3) / 10
    return atoms


@pytest.fixture(scope="module")
def ethanol() -> list[Atoms]:
    """Rattled ethanol at GFN2-xTB in eV and eV/A."""
    from tblite.ase import TBLite

    random = np.random.default_rng(1)
    start = molecule("CH3CH2OH")
    frames = []
    for _ in range(30):
        atoms = start.copy()
        atoms.positions += random.normal(0, 0.05, atoms.positions.shape)
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        frames.append(labelled(atoms))
    return frames


@pytest.fixture(scope="module")
def copper() -> list[Atoms]:
    """Rattled and strained copper from effective medium theory, with stress."""
    from ase.calculators.emt import EMT

    random = np.random.default_rng(2)
    frames = []
    for _ in range(30):
        atoms = bulk("Cu", cubic=True) * (2, 2, 2)
        atoms.set_cell(atoms.cell.array * (1 + random.uniform(-0.015, 0.015)), scale_atoms=True)
        atoms.rattle(0.05, rng=random)
        atoms.calc = EMT()
        frames.append(labelled(atoms))
    return frames


def labelled(atoms: Atoms) -> Atoms:
    atoms.info[ENERGY] = atoms.get_potential_energy()
    atoms.arrays[FORCES] = atoms.get_forces()
    if atoms.pbc.any():
        atoms.info[STRESS] = atoms.get_stress(voigt=False).ravel()
    atoms.calc = None
    return atoms


def scaled(frames: list[Atoms], energy: float, force: float, stress: float = 1.0) -> list[Atoms]:
    changed = []
    for frame in frames:
        new = frame.copy()
        new.info[ENERGY] *= energy
        new.arrays[FORCES] = new.arrays[FORCES] * force
        if STRESS in new.info:
            new.info[STRESS] = np.asarray(new.info[STRESS]) * stress
        changed.append(new)
    return changed


def test_units_agree_with_codata() -> None:
    electronvolt = scipy.constants.electron_volt
    hartree = scipy.constants.value("Hartree energy in eV")
    assert energy_factor("hartree") == pytest.approx(hartree, rel=1e-7)
    assert energy_factor("Ry") == pytest.approx(hartree / 2, rel=1e-7)
    assert energy_factor("kcal/mol") == pytest.approx(4184 / scipy.constants.Avogadro / electronvolt, rel=1e-7)
    assert energy_factor("kJ/mol") == pytest.approx(1000 / scipy.constants.Avogadro / electronvolt, rel=1e-7)
    assert length_factor("Bohr") == pytest.approx(scipy.constants.value("Bohr radius") * 1e10, rel=1e-7)
    with pytest.raises(RetemperError, match=r"did you mean 'Hartree'"):
        energy_factor("Hartre")


def test_labels_are_converted_and_info_is_kept() -> None:
    atoms = water(charge=1, name="a", source="mine", note="x" * 500)
    (new,) = map_labels([atoms], settings(energy_unit="Hartree", length_unit="Bohr"), "f.xyz").frames
    assert new.info[ENERGY] == pytest.approx(-272.11386, abs=1e-4)
    assert new.arrays[FORCES][2, 2] == pytest.approx(0.8 * 51.422067, abs=1e-5)
    assert new.info["source"] == "f.xyz:0"
    assert (new.info["source_given"], new.info["total_charge"], new.info["name"]) == ("mine", 1, "a")
    assert "note" not in new.info
    assert new.info["config_type"] == "Default"


def test_labels_in_a_calculator_are_found(tmp_path: Path) -> None:
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5, forces=[[0.1, 0, 0]], stress=[1, 2, 3, 4, 5, 6])
    write(tmp_path / "a.extxyz", atoms)
    keys = {"energy": "energy", "forces": "forces", "stress": "stress"}
    (new,) = map_labels([read(tmp_path / "a.extxyz")], settings(keys=keys), "a").frames
    assert new.info[ENERGY] == -3.5
    assert new.arrays[FORCES].tolist() == [[0.1, 0, 0]]
    assert new.info[STRESS].reshape(3, 3).tolist() == [[1, 6, 5], [6, 2, 4], [5, 4, 3]]


def test_stress_comes_in_three_forms() -> None:
    full = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    for form in (np.array([1.0, 2, 3, 4, 5, 6]), full, full.ravel()):
        assert (as_matrix(form) == full).all()
    with pytest.raises(ValueError, match="reshape"):
        as_matrix(np.zeros(5))


def test_virial_becomes_stress_with_the_opposite_sign() -> None:
    """Against effective medium theory: the virial is -V times the stress that ASE gives."""
    from ase.calculators.emt import EMT

    atoms = bulk("Cu", a=3.7)
    atoms.calc = EMT()
    stress, volume = atoms.get_stress(voigt=False), atoms.get_volume()
    assert stress[0, 0] > 0  # a stretched crystal pulls
    labelled(atoms).info["virial"] = -stress * volume
    del atoms.info[STRESS]
    (new,) = map_labels([atoms], settings(keys={"stress": None, "virial": "virial"}), "a").frames
    np.testing.assert_allclose(new.info[STRESS].reshape(3, 3), stress, atol=1e-10)


def test_misspelt_keys_name_the_nearest() -> None:
    frames = [water(dft_energy=-3.0)]
    with pytest.raises(RetemperError, match=r"dataset.keys.energy: dft_energy"):
        map_labels(frames, settings(keys={"energy": "dft_enrgy"}), "a")
    with pytest.raises(RetemperError, match=r"dataset.keys.forces: REF_forces"):
        map_labels(frames, settings(keys={"forces": "REF_force"}), "a")
    with pytest.raises(RetemperError, match=r"the key of the virial"):
        map_labels(frames, settings(keys={"virial": "virial"}), "a")


def test_frames_without_labels_are_rejected_with_a_reason() -> None:
    good, no_energy, no_forces, wrong_shape, text = (water() for _ in range(5))
    del no_energy.info["REF_energy"]
    del no_forces.arrays["REF_forces"]
    wrong_shape.arrays["REF_forces"] = np.zeros((3, 2))
    text.info["REF_energy"] = "high"
    mapped = map_labels([good, no_energy, no_forces, wrong_shape, text], settings(), "a")
    assert [frame.info["source"] for frame in mapped.frames] == ["a:0"]
    reasons = [frame.info["reason"] for frame in mapped.rejected]
    assert "no energy" in reasons[0]
    assert "no forces" in reasons[1]
    assert "(3, 2) for 3 atoms" in reasons[2]
    assert "not one number" in reasons[3]


def test_a_stress_needs_a_cell() -> None:
    with pytest.raises(RetemperError, match="a:0: a stress without a cell"):
        map_labels([water(REF_stress=np.ones(6))], settings(), "a")
    mapped = map_labels([water(REF_stress=np.zeros(6))], settings(), "a")
    assert STRESS not in mapped.frames[0].info
    assert "ignored" in mapped.warnings[0]
    skew = bulk("Cu")
    skew.info |= {"REF_energy": 0.0, "REF_stress": np.arange(9.0)}
    skew.arrays["REF_forces"] = np.zeros((1, 3))
    assert "not symmetric" in map_labels([skew], settings(), "a").rejected[0].info["reason"]


def test_free_atoms_are_recognised() -> None:
    box = Atoms("Na", cell=[10, 10, 10], pbc=True)
    slanted = Atoms("Na", cell=[[10, 0, 0], [9.9, 3, 0], [0, 0, 10]], pbc=True)  # 3 A between its faces
    named = Atoms("Na", cell=[4, 4, 4], pbc=True, info={"config_type": "isolatedatom"})
    assert [is_free_atom(a) for a in (Atoms("H"), box, named, slanted, bulk("Na"), molecule("H2"))] == [
        *[True] * 3,
        *[False] * 3,
    ]
    box.info["REF_energy"] = -1.0
    (new,) = map_labels([box], settings(), "a").frames
    assert new.info["config_type"] == "IsolatedAtom"
    assert not new.pbc.any()
    assert new.arrays[FORCES].tolist() == [[0, 0, 0]]


def test_badger_rule_against_diatomics() -> None:
    """Bond lengths (A) and force constants (mdyn/A) from Huber and Herzberg, Constants of Diatomic Molecules (1979)."""
    known = {
        "HH": (0.741, 5.75),
        "LiH": (1.595, 1.03),
        "HCl": (1.275, 5.16),
        "NN": (1.098, 22.9),
        "OO": (1.208, 11.8),
        "FF": (1.412, 4.70),
        "NaCl": (2.361, 1.09),
        "ClCl": (1.988, 3.23),
        "LiLi": (2.673, 0.255),
        "NaNa": (3.079, 0.172),
        "BrBr": (2.281, 2.46),
        "II": (2.666, 1.72),
    }
    for name, (length, constant) in known.items():
        first, second = Atoms(name).numbers
        ratio = badger(np.array(first), np.array(second), np.array(length)) / (constant * 6.2415)
        assert 0.4 < ratio < 2.5, name


def test_all_electron_energies_against_exact_ones() -> None:
    """Non-relativistic energies in Hartree from Chakravorty et al., Phys. Rev. A 47, 3649 (1993)."""
    exact = {6: -37.8450, 7: -54.5892, 8: -75.0673, 11: -162.2546, 17: -460.148}
    got = all_electron_energy(np.array(list(exact))) / HARTREE
    np.testing.assert_allclose(got, list(exact.values()), rtol=0.01)


def test_right_units_pass(ethanol: list[Atoms], copper: list[Atoms]) -> None:
    for frames in (ethanol, copper):
        verdict = check_units(frames, "eV", "Angstrom")
        assert not verdict.message
        assert any("times the work of the forces" in text for text in verdict.evidence)
    same = check_units(ethanol, "kcal/mol", "Angstrom")  # converted to eV: the declared unit does not matter
    assert not same.message


CASES = [
    ("energies in Hartree and forces in Hartree/Bohr", 1 / HARTREE, BOHR / HARTREE),
    ("energies in Hartree and forces in Hartree/A", 1 / HARTREE, 1 / HARTREE),
    ("energies in Hartree and forces in eV/A", 1 / HARTREE, 1.0),
    ("energies in eV and forces in Hartree/Bohr", 1.0, BOHR / HARTREE),
    ("energies in kcal/mol and forces in kcal/mol/A", 1 / KCAL, 1 / KCAL),
    ("energies in kJ/mol and forces in kJ/mol/A", 1 / KJ, 1 / KJ),
    ("energies in Ry and forces in Ry/Bohr", 2 / HARTREE, 2 * BOHR / HARTREE),
]


@pytest.mark.parametrize(("name", "energy", "force"), CASES)
def test_wrong_units_are_named(
    name: str, energy: float, force: float, ethanol: list[Atoms], copper: list[Atoms]
) -> None:
    for frames in (ethanol, copper):
        verdict = check_units(scaled(frames, energy, force, energy), "eV", "Angstrom")
        assert verdict.wrong
        assert name in verdict.message


def test_a_factor_below_two_is_seen_between_close_frames(ethanol: list[Atoms]) -> None:
    verdict = check_units(scaled(ethanol, 1, BOHR), "eV", "Angstrom")
    assert verdict.wrong
    assert "energies in eV and forces in eV/Bohr" in verdict.message
    assert "energies in eV per atom" in check_units(scaled(ethanol, 1 / 9, 1), "eV", "Angstrom").message


def test_units_are_named_as_those_of_the_file(ethanol: list[Atoms]) -> None:
    """eV labels that were declared, and so converted, as Hartree and Bohr."""
    with pytest.raises(RetemperError, match=r"f\.xyz: wrong units.*energies in eV and forces in eV/A") as error:
        require_units({"f.xyz": scaled(ethanol, HARTREE, HARTREE / BOHR)}, "Hartree", "Bohr")
    assert "energy_unit: eV and dataset.length_unit: Angstrom" in str(error.value)


def test_signs_and_stress_units_are_checked(copper: list[Atoms]) -> None:
    assert "gradients" in check_units(scaled(copper, 1, -1), "eV", "Angstrom").message
    assert "wrong sign" in check_units(scaled(copper, 1, 1, -1), "eV", "Angstrom").message
    assert "looks like GPa" in check_units(scaled(copper, 1, 1, 1 / units.GPa), "eV", "Angstrom").message
    assert "looks like kbar" in check_units(scaled(copper, 1, 1, 10 / units.GPa), "eV", "Angstrom").message


def test_positions_in_bohr_or_nm_are_recognised(ethanol: list[Atoms]) -> None:
    for name, factor in (("Bohr", 1 / BOHR), ("nm", 0.1)):
        moved = [frame.copy() for frame in ethanol]
        for frame in moved:
            frame.positions *= factor
        verdict = check_units(moved, "eV", "Angstrom")
        assert verdict.wrong
        assert f"look like {name}" in verdict.message


SOUND = [
    "real/3bpa_300K",
    "real/ec_emc_liquid_DFT",
    "real/li_mn_o_PBE",
    "real/mlearn_Li_PBE",
    "real/mptrj_pbe_22el",
    "real/mptrj_random_1k_PBE",
    "real/nacl_water_MP2_gen2",
    "real/water64_revPBE0-D3",
    "generated/ice_r2scan7net",
    "generated/lpsc_r2scan7net",
    "generated/sn2_b3lyp_def2-svpd",
    "generated/spice_gfn2",
]


@pytest.mark.parametrize("name", SOUND)
def test_published_sets_pass_and_are_recognised_in_other_units(name: str, real_data: Path) -> None:
    keys = {"stress": None, "virial": "REF_virial"} if "ec_emc" in name else {}
    path = real_data / f"{name}.extxyz"
    frames = map_labels(read(path, ":"), settings(keys=keys), name).frames
    verdict = check_units(frames, "eV", "Angstrom")
    assert not verdict.message
    relaxed = "mptrj_random" in name  # no two frames of one formula, hardly any forces: no more than a suspicion
    for unit, energy, force in (
        ("Hartree/Bohr", 1 / HARTREE, BOHR / HARTREE),
        ("Hartree/A", 1 / HARTREE, 1 / HARTREE),
        ("kcal/mol/A", 1 / KCAL, 1 / KCAL),
    ):
        verdict = check_units(scaled(frames, energy, force, energy), "eV", "Angstrom")
        assert verdict.wrong != relaxed
        assert unit in verdict.message
