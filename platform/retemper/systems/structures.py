"""What several generators share: a random generator a group, and conformers of molecules.

References
----------
ETKDG conformers: S. Riniker, G. A. Landrum, J. Chem. Inf. Model. 55, 2562 (2015).
"""

from __future__ import annotations

import hashlib

import numpy as np
from ase import Atoms

from retemper.core.errors import RetemperError


def rng_of(group: str, seed: int) -> np.random.Generator:
    """Random generator of a group: the same on every machine, independent of other groups."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{group}-{seed}".encode()).digest()[:8], "little"))


def conformers(smiles: str, rng: np.random.Generator, number: int) -> list[Atoms]:
    """ETKDG conformers, relaxed with MMFF94; [n_atoms, 3] positions in A with hydrogens.

    Raises
    ------
    RetemperError
        RDKit is not installed.
    """
    try:
        from rdkit import Chem
        from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
    except ImportError as error:
        raise RetemperError(f"RDKit is not installed: {error}.", fix="pip install rdkit") from None

    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    parameters = rdDistGeom.ETKDGv3()
    parameters.randomSeed = int(rng.integers(2**31 - 1))  # type: ignore[assignment]  # rdkit's stub is wrong here
    ids = rdDistGeom.EmbedMultipleConfs(mol, number, parameters)
    rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(mol)
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    return [Atoms(symbols, positions=mol.GetConformer(i).GetPositions()) for i in ids]


def rattle(atoms: Atoms, rng: np.random.Generator, deviation: float) -> Atoms:
    """Copy with normal noise of standard deviation `deviation` (A) on every coordinate."""
    copy: Atoms = atoms.copy()
    copy.positions += rng.normal(0.0, deviation, size=copy.positions.shape)
    return copy
