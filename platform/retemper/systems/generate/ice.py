"""Ice polymorphs with SevenNet-MF-0 labels at r2SCAN: cells of GenIce, relaxed, strained and disturbed.

A group is a polymorph with one arrangement of its protons (ordered polymorphs have one). In each frame
the cell is strained, molecules are displaced and turned as wholes, and every atom is rattled a little.
A group of single molecules goes with them: lattice energies refer to it.

References
----------
GenIce: M. Matsumoto, T. Yagasaki, H. Tanaka, J. Comput. Chem. 39, 61 (2018); J. Chem. Phys. 160, 094101 (2024).
Ice VIII: W. F. Kuhs et al., J. Chem. Phys. 81, 3612 (1984).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.spacegroup import crystal

from retemper.core.errors import RetemperError
from retemper.systems.sevennet import LEVEL, free_atoms, label_all, relax
from retemper.systems.structures import rattle, rng_of
from retemper.systems.xtb import Tally

__all__ = ["LEVEL", "free_atoms", "group", "groups"]


@dataclass(frozen=True)
class Polymorph:
    """How a polymorph is made."""

    unitcell: str | None  # of GenIce; None: ice VIII from its space group
    arrangements: int = 2  # of the protons; 1: they are ordered


POLYMORPHS = {
    "Ih": Polymorph("1h_unit"),
    "Ic": Polymorph("1c"),
    "II": Polymorph("2", 1),
    "III": Polymorph("3"),
    "V": Polymorph("5", 1),
    "VI": Polymorph("6"),
    "VII": Polymorph("7"),
    "VIII": Polymorph(None, 1),
    "IX": Polymorph("9", 1),
    "XI": Polymorph("11", 1),
    "XIII": Polymorph("13", 1),
}
FRAMES = 9  # of one arrangement
RELAX_STEPS = 15
VOLUME = (-0.10, 0.08)  # relative change, uniform
STRAIN = 0.01  # standard deviation of each component
SHIFT = 0.06  # A, standard deviation of a molecule's displacement along each axis
TURN = 5.0  # degrees, standard deviation of a molecule's rotation
RATTLE = 0.015  # A, standard deviation for each atom
OH = 0.97  # A, before relaxation
MONOMER = "monomer"


def groups() -> list[str]:
    """Polymorphs with their arrangements, then the single molecule."""
    return [f"{name}-{k}" for name, polymorph in POLYMORPHS.items() for k in range(polymorph.arrangements)] + [MONOMER]


def group(name: str, seed: int, tally: Tally) -> list[Atoms]:
    """The frames of one arrangement, the relaxed cell first; or of the single molecule."""
    rng = rng_of(name, seed)
    if name == MONOMER:
        water = relax(molecule("H2O"), RELAX_STEPS)
        frames = [water] + [rattle(water, rng, 3 * RATTLE) for _ in range(FRAMES - 1)]
        return label_all([(atoms, MONOMER) for atoms in frames], name, tally)
    polymorph = name.rpartition("-")[0]
    start = relax(cell_of(polymorph, int(rng.integers(2**31 - 1))), RELAX_STEPS)
    frames = [start] + [disturb(start, rng) for _ in range(FRAMES - 1)]
    return label_all([(atoms, f"ice-{polymorph}") for atoms in frames], name, tally)


def cell_of(polymorph: str, seed: int) -> Atoms:
    """A cell of the polymorph, molecule by molecule (O H H), protons arranged by `seed` where they are free."""
    unitcell = POLYMORPHS[polymorph].unitcell
    if unitcell is None:
        oxygen, hydrogen = (0.0, 0.25, 0.1071), (0.0, 0.4157, 0.1935)
        cellpar = [4.656, 4.656, 6.775, 90, 90, 90]
        eight = crystal("OH", [oxygen, hydrogen], spacegroup=141, setting=2, cellpar=cellpar)
        return by_molecule(eight.repeat((2, 1, 1)))
    try:
        import genice_core
        from genice3.genice import GenIce3
    except ImportError as error:
        raise RetemperError(
            f"GenIce is not installed: {error}.", fix="use the environment of systems/requirements.txt"
        ) from None
    lattice = GenIce3(unitcell=importlib.import_module(f"genice3.unitcell.{unitcell}").UnitCell())
    bonds = genice_core.ice_graph(  # not lattice.digraph, which takes no seed
        lattice.graph,
        vertex_positions=lattice.lattice_sites,
        is_periodic_boundary=True,
        dipole_optimization_cycles=1000,
        fixed_edges=lattice.fixed_edges,
        seed=seed,
    )
    cell = 10.0 * lattice.cell  # from nm
    symbols, positions = "", []
    for i, site in enumerate(lattice.lattice_sites):
        towards = lattice.lattice_sites[sorted(bonds.successors(i))] - site
        towards = (towards - towards.round()) @ cell
        hydrogens = OH * towards / np.linalg.norm(towards, axis=1, keepdims=True)
        symbols += "OH2"
        positions += [site @ cell, *(site @ cell + hydrogens)]
    return Atoms(symbols, positions=positions, cell=cell, pbc=True)


def by_molecule(atoms: Atoms) -> Atoms:
    """The same crystal molecule by molecule: each O, then its two H beside it."""
    oxygens, hydrogens = np.flatnonzero(atoms.numbers == 8), np.flatnonzero(atoms.numbers == 1)
    order, positions = [], []
    for i in oxygens:
        vectors = atoms.get_distances(i, hydrogens, mic=True, vector=True)
        lengths = np.linalg.norm(vectors, axis=1)
        nearest = np.argsort(lengths)[:2]
        if lengths[nearest].max() > 1.2 or np.sort(lengths)[2] < 1.3:
            raise ValueError(f"oxygen {i} has no two hydrogens of its own: {np.sort(lengths)[:3]}")
        order += [i, *hydrogens[nearest]]
        positions += [atoms.positions[i], *(atoms.positions[i] + vectors[nearest])]
    return Atoms(atoms.numbers[order], positions=positions, cell=atoms.cell, pbc=True)


def disturb(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Copy with the cell strained, molecules (three atoms each) moved and turned, atoms rattled."""
    copy = atoms.copy()
    strain = rng.normal(0.0, STRAIN, size=(3, 3))
    strain = (strain + strain.T) / 2
    strain -= np.eye(3) * np.trace(strain) / 3
    stretch = (1 + rng.uniform(*VOLUME)) ** (1 / 3) * (np.eye(3) + strain)
    copy.set_cell(atoms.cell.array @ stretch)
    for i in range(0, len(atoms), 3):
        members = slice(i, i + 3)
        centre = atoms.positions[members].mean(axis=0)
        turn = rotation(rng.normal(0.0, np.radians(TURN), size=3))
        shifted = centre @ stretch + rng.normal(0.0, SHIFT, size=3)
        copy.positions[members] = (atoms.positions[members] - centre) @ turn.T + shifted
    return rattle(copy, rng, RATTLE)


def rotation(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] by the length (radians) of `vector` about its direction; Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)
