"""Water molecules with labels by xTB."""

from __future__ import annotations

from typing import Any

from ase import Atoms

from retemper.data.frames import ENERGY, FORCES


def water(k: int, **info: Any) -> Atoms:
    """A rattled water molecule with labels by xTB."""
    from ase.build import molecule
    from tblite.ase import TBLite

    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=k)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    atoms.info |= {ENERGY: float(atoms.get_potential_energy()), **info}
    atoms.arrays[FORCES] = atoms.get_forces()
    atoms.calc = None
    return atoms
