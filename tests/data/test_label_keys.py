"""Keys of labels are told from names and shapes; what is not clear is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from retemper.core.errors import RetemperError
from retemper.data import label_keys


def frames(info: dict[str, object], arrays: tuple[str, ...] = (), *, number: int = 3) -> list[Atoms]:
    """Water with info and per-atom arrays of three numbers."""
    every = []
    for _ in range(number):
        atoms = Atoms("OH2", positions=np.eye(3))
        atoms.info.update(info)
        for name in arrays:
            atoms.arrays[name] = np.ones((3, 3))
        every.append(atoms)
    return every


@pytest.mark.parametrize(
    ("info", "arrays", "expected"),
    [
        ({"REF_energy": 1.0}, ("REF_forces",), ("REF_energy", "REF_forces", None, None)),
        ({"DFT_energy": 1.0, "dft_virial": np.eye(3)}, ("forces",), ("DFT_energy", "forces", None, "dft_virial")),
        ({"TotEnergy": 1.0, "Stress": np.ones(6)}, ("Force",), ("TotEnergy", "Force", "Stress", None)),
        ({"E": -2, "virial": np.ones(9), "stress": np.ones(9)}, ("F",), ("E", "F", "stress", None)),
        ({"energy_xtb": 1.0, "energy": 2.0}, ("forces", "forces_xtb"), ("energy", "forces", None, None)),
        ({"etot": 1.0, "energy_per_atom": 0.3, "config_energy_weight": 2}, ("f",), ("etot", "f", None, None)),
    ],
)  # fmt: skip
def test_names(info: dict[str, object], arrays: tuple[str, ...], expected: tuple[str | None, ...]) -> None:
    keys = label_keys.count(frames(info, arrays)).choose({}, "a.xyz")
    assert (keys.energy, keys.forces, keys.stress, keys.virial) == expected


def test_results_of_a_calculator_count() -> None:
    """As ASE reads ``energy`` and ``forces`` of an extxyz file, or an output of a code."""
    atoms = frames({})[0]
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((3, 3)), stress=np.zeros(6))
    keys = label_keys.count([atoms]).choose({}, "a.xyz")
    assert (keys.energy, keys.forces, keys.stress) == ("energy", "forces", "stress")


@pytest.mark.hostile("data")
def test_what_is_not_clear_is_asked_for() -> None:
    two = label_keys.count(frames({"pbe_energy": 1.0, "hse_energy": 2.0}, ("pbe_forces",)))
    with pytest.raises(RetemperError, match=r"several keys could hold the energy: hse_energy, pbe_energy"):
        two.choose({}, "a.xyz")
    assert two.choose({"energy": "pbe_energy"}, "a.xyz").energy == "pbe_energy"
    with pytest.raises(RetemperError, match="no frame has the key 'energi'"):
        two.choose({"energy": "energi"}, "a.xyz")


@pytest.mark.hostile("data")
def test_shapes_decide() -> None:
    """Three numbers an atom are forces, one is not; a text is no energy."""
    with pytest.raises(RetemperError, match="looks like energy"):
        label_keys.count(frames({"energy": "low"}, ("forces",))).choose({}, "a.xyz")
    scalar = frames({"energy": 1.0})
    for atoms in scalar:
        atoms.arrays["forces"] = np.ones(3)
    with pytest.raises(RetemperError, match="looks like forces") as error:
        label_keys.count(scalar).choose({}, "a.xyz")
    assert "--keys forces=KEY" in str(error.value)


def test_a_label_that_is_not_wanted() -> None:
    counted = label_keys.count(frames({"energy": 1.0, "stress": np.eye(3)}, ("forces",)))
    assert counted.choose({"stress": None}, "a.xyz").stress is None
