"""Copper clusters and their labels by EMT, for the tests of labelling."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT


def clusters(number: int = 5) -> list[Atoms]:
    """Copper clusters of 2, 3, ... atoms: the number of atoms names them."""
    block = bulk("Cu", cubic=True).repeat(3)
    return [Atoms(f"Cu{n}", block.positions[:n].round(8), info={"pick": n}) for n in range(2, 2 + number)]


def direct(atoms: Atoms) -> tuple[float, np.ndarray]:
    work = atoms.copy()
    work.calc = EMT()
    return work.get_potential_energy(), work.get_forces()
