"""The SPICE data set's HDF5 files: a group a molecule with all its conformations, in Bohr and Hartree.

Fields, as the data set's downloader describes them: ``subset`` and ``smiles`` (one string each),
``atomic_numbers`` [n_atoms], ``conformations`` [n, n_atoms, 3], ``dft_total_energy`` [n],
``dft_total_gradient`` [n, n_atoms, 3]. Forces are minus the gradient.

References
----------
P. Eastman et al., Sci. Data 10, 11 (2023); wB97M-D3BJ/def2-TZVPPD, CC0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.config.settings import Section
from retemper.core.errors import RetemperError
from retemper.data.charge import CHARGE as TOTAL
from retemper.data.frames import ENERGY, FORCES
from retemper.data.units import energy_factor, length_factor

UNITS = {"conformations": "bohr", "dft_total_energy": "hartree", "dft_total_gradient": "hartree/bohr"}
CHARGE = re.compile(r"\[[^\[\]:]*?(\++|-+)(\d*)(?::\d+)?\]")  # of a bracketed atom in SMILES: + ++ +2 - -2


class Options(Section):
    subsets: list[str] | None = None  # parts of the names of subsets, e.g. [Dipeptides, PubChem]; null: all
    neutral: bool = False  # leave charged molecules out: a model without charges cannot fit them
    max_conformations: int | None = None  # the first ones of each molecule; null: all


def frames(source: Path, options: Options) -> Iterator[Atoms]:
    """Structures molecule by molecule, in the file's order.

    Raises
    ------
    RetemperError
        A file that is not HDF5, or a molecule without the fields above or in other units.
    """
    import h5py

    try:
        file = h5py.File(source, "r")
    except OSError as error:
        raise RetemperError(f"{source} cannot be read: {error}.", expected="an HDF5 file of SPICE") from None
    with file:
        for name, molecule in file.items():
            _require(source, name, molecule)
            subset, smiles = (_text(molecule[field]) for field in ("subset", "smiles"))
            charge = formal_charge(smiles)
            if options.subsets is not None and not any(part in subset for part in options.subsets):
                continue
            if options.neutral and charge:
                continue
            yield from _molecule(name, molecule, subset, charge, options.max_conformations)


def _molecule(name: str, molecule: Any, subset: str, charge: int, limit: int | None) -> Iterator[Atoms]:
    length, energy = length_factor("Bohr"), energy_factor("Hartree")
    numbers = molecule["atomic_numbers"][:]
    positions = molecule["conformations"][:limit].astype(float) * length
    energies = molecule["dft_total_energy"][:limit].astype(float) * energy
    forces = molecule["dft_total_gradient"][:limit].astype(float) * (-energy / length)
    for x, e, f in zip(positions, energies, forces, strict=True):
        atoms = Atoms(numbers=numbers, positions=x)
        atoms.info.update({ENERGY: float(e), "group": f"spice:{name}", "config_type": subset, TOTAL: charge})
        atoms.arrays[FORCES] = f
        yield atoms


def formal_charge(smiles: str) -> int:
    """Sum of the formal charges of a SMILES string."""
    total = 0
    for signs, number in CHARGE.findall(smiles):
        size = int(number) if number else len(signs)
        total += size if signs[0] == "+" else -size
    return total


def _text(field: Any) -> str:
    value = field[0] if np.shape(field) else field[()]
    return value.decode() if isinstance(value, bytes) else str(value)


def _require(source: Path, name: str, molecule: Any) -> None:
    missing = sorted({"subset", "smiles", "atomic_numbers", *UNITS} - set(molecule))
    if missing:
        raise RetemperError(
            f"{source}: molecule {name} has no {', '.join(missing)}.",
            expected="the fields of the SPICE data set",
            got=", ".join(molecule),
            fix="download SPICE's own HDF5 file, with DFT TOTAL GRADIENT among its values",
        )
    for field, unit in UNITS.items():
        declared = molecule[field].attrs.get("units", unit)
        if declared != unit:
            raise RetemperError(f"{source}: {field} of {name} is in {declared}.", expected=unit)
