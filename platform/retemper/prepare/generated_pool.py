"""Structures to replay where no pool is known: made for the foundation's elements, labelled by the foundation.

Pseudolabels need structures and no labels, and diverse structures serve as well as the foundation's own
pretraining structures (arXiv:2606.12704, section 2.5 and appendix E). Made here, by families in equal shares:

- crystals: elements and compounds of two and three elements in common prototypes, at the volume where the foundation
  has the lowest energy, then strained and rattled;
- disordered cells: one to three elements at random places, none nearer than 0.8 times the covalent radii;
- molecules: those of the G2 set (ASE) that have these elements, alone, rattled, and in small clusters;
- pairs: two atoms of any two elements, from 0.6 to 2 times the sum of covalent radii.

What the foundation itself finds absurd (forces above `MAX_FORCE`, or a stress that no label may have) is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2
from ase.data import chemical_symbols, covalent_radii

from retemper.core.errors import RetemperError
from retemper.data.geometry import neighbours

ELEMENTAL = ("sc", "bcc", "fcc", "hcp", "diamond")
BINARY = ("rocksalt", "cesiumchloride", "zincblende", "wurtzite", "fluorite", "antifluorite", "L1_2")
SCALES = np.linspace(0.82, 1.3, 13)  # of the lattice constants from covalent radii
NEAREST = 0.8  # times the sum of covalent radii, in disordered cells and clusters
MAX_FORCE = 25.0  # eV/A
STRAIN, RATTLE = 0.04, (0.02, 0.25)  # standard deviations: of the strain, and range of that of positions (A)
VOLUME = (0.82, 1.2)  # of a strained crystal, times that of the lowest energy

Energies = Callable[[Sequence[Atoms]], tuple[np.ndarray, np.ndarray]]  # eV and largest force (eV/A), [n_structures]


def generate(elements: Sequence[int], number: int, energies: Energies, *, seed: int = 0) -> list[Atoms]:
    """`number` structures of `elements`, without labels.

    Parameters
    ----------
    elements
        Atomic numbers that the foundation knows.
    number
        Structures in all.
    energies
        The foundation's energies and largest forces of structures.
    seed
        Of the random numbers; the same structures come of the same foundation.

    Returns
    -------
    list of Atoms
        With ``info["config_type"]`` (the family) and ``info["group"]`` (what it was made from: structures of one
        prototype, composition or molecule belong together).

    Raises
    ------
    RetemperError
        So many structures were found absurd by the foundation that the number was not reached.
    """
    families: dict[str, Callable[[Sequence[int], np.random.Generator, Energies], Iterator[Atoms]]] = {
        "crystal": _crystals,
        "disordered": _disordered,
        "molecule": _molecules,
        "pair": _pairs,
    }
    if not _names_of_molecules(elements):
        del families["molecule"]
    shares = np.full(len(families), number // len(families))
    shares[: number % len(families)] += 1
    structures: list[Atoms] = []
    for (family, make), share in zip(families.items(), shares.tolist(), strict=True):
        rng = np.random.default_rng([seed, *sorted(elements), *family.encode()])
        structures += _take(make(elements, rng, energies), share, energies, family)
    return structures


def _take(structures: Iterator[Atoms], number: int, energies: Energies, family: str) -> list[Atoms]:
    """The first `number` of `structures` that the foundation does not find absurd."""
    taken: list[Atoms] = []
    asked = 0
    while len(taken) < number:
        batch = list(itertools.islice(structures, max(16, number - len(taken))))
        asked += len(batch)
        _, forces = energies(batch)
        for atoms, force in zip(batch, forces.tolist(), strict=True):
            if np.isfinite(force) and force <= MAX_FORCE and len(taken) < number:
                atoms.info["config_type"] = family
                taken.append(atoms)
        if asked > 20 * number + 100:
            raise RetemperError(
                f"The foundation gives forces above {MAX_FORCE} eV/A to most structures of the family {family}.",
                expected=f"{number} structures",
                got=f"{len(taken)} of {asked}",
                fix="name files of structures that the foundation was trained on, or like them, in replay.pools",
            )
    return taken


# ------------------------------------------------------------------ families, without end


def _crystals(elements: Sequence[int], rng: np.random.Generator, energies: Energies) -> Iterator[Atoms]:
    """Prototypes with random elements: each once as it is, and three strained copies."""
    while True:
        kinds = int(rng.choice([1, 2, 3], p=[0.3, 0.5, 0.2]))
        numbers = [int(z) for z in rng.choice(elements, size=min(kinds, len(elements)), replace=False)]
        prototype = {1: ELEMENTAL, 2: BINARY, 3: ("perovskite",)}[len(numbers)]
        atoms = at_lowest_energy(crystal(numbers, str(rng.choice(prototype))), energies)
        yield atoms
        for _ in range(3):
            yield strained(atoms, rng)


def crystal(elements: Sequence[int], prototype: str) -> Atoms:
    """Primitive cell of a prototype, with a lattice constant from covalent radii."""
    symbols = [chemical_symbols[z] for z in elements]
    between = 2 * float(np.mean(covalent_radii[list(elements)]))  # A, from one atom to the next
    if prototype == "perovskite":
        sites = [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]
        a = 2 * float(covalent_radii[elements[1]] + covalent_radii[elements[2]])
        atoms = Atoms([symbols[0], symbols[1], *[symbols[2]] * 3], scaled_positions=sites, cell=[a] * 3, pbc=True)
    elif prototype == "L1_2":
        sites = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
        cell = [2**0.5 * between] * 3
        atoms = Atoms([symbols[0], *[symbols[1]] * 3], scaled_positions=sites, cell=cell, pbc=True)
    elif len(elements) == 1:
        a = {"sc": 1.0, "bcc": 2 / 3**0.5, "fcc": 2**0.5, "hcp": 1.0, "diamond": 4 / 3**0.5}[prototype] * between
        atoms = bulk(symbols[0], prototype, a=a, covera=(8 / 3) ** 0.5 if prototype == "hcp" else None)
    else:
        order = symbols[::-1] if prototype == "antifluorite" else symbols
        name = "fluorite" if prototype == "antifluorite" else prototype
        nearest = {"rocksalt": 2.0, "cesiumchloride": 2 / 3**0.5, "wurtzite": (8 / 3) ** 0.5}.get(name, 4 / 3**0.5)
        atoms = bulk("".join(order) + ("2" if name == "fluorite" else ""), name, a=nearest * between)
    atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=True)  # without magnetic moments
    atoms.info["group"] = f"{prototype} {'-'.join(symbols)}"
    return atoms


def at_lowest_energy(atoms: Atoms, energies: Energies) -> Atoms:
    """`atoms` with its cell scaled to where the foundation has the lowest energy, among `SCALES`."""
    scaled = []
    for scale in SCALES:
        copy = atoms.copy()
        copy.set_cell(atoms.cell.array * scale, scale_atoms=True)
        scaled.append(copy)
    energy, _ = energies(scaled)
    best: Atoms = scaled[int(np.nanargmin(energy))]
    return best


def strained(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """A copy with another volume, sheared, rattled; small cells may be doubled first."""
    copy: Atoms = atoms.copy()
    if len(copy) <= 5 and rng.random() < 0.6:
        repeat = [1, 1, 1]
        repeat[int(rng.integers(3))] = 2
        copy = copy.repeat(repeat)
    noise = rng.normal(scale=STRAIN, size=(3, 3))
    stretch = (np.eye(3) + (noise + noise.T) / 2) * rng.uniform(*VOLUME) ** (1 / 3)
    copy.set_cell(copy.cell.array @ stretch, scale_atoms=True)
    copy.positions += rng.normal(scale=rng.uniform(*RATTLE), size=copy.positions.shape)
    return copy


def _disordered(elements: Sequence[int], rng: np.random.Generator, energies: Energies) -> Iterator[Atoms]:
    """Up to twelve atoms of one to three elements at random places of a random cell."""
    while True:
        kinds = min(int(rng.integers(1, 4)), len(elements))
        species = sorted(int(z) for z in rng.choice(elements, size=kinds, replace=False))
        numbers = np.repeat(species, rng.integers(1, 5, size=kinds))
        radii = covalent_radii[numbers]
        volume = float(np.maximum(2.2 * 4 / 3 * np.pi * radii**3, 6.0).sum()) * rng.uniform(0.8, 1.6)
        shape = np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
        cell = shape * (volume / abs(np.linalg.det(shape))) ** (1 / 3)
        atoms = Atoms(numbers, rng.random((len(numbers), 3)) @ cell, cell=cell, pbc=True)
        if _apart(atoms):
            atoms.info["group"] = f"disordered {atoms.symbols.get_chemical_formula()}"
            yield atoms


def _molecules(elements: Sequence[int], rng: np.random.Generator, energies: Energies) -> Iterator[Atoms]:
    """Molecules of the G2 set: rattled, and two to four of them close together."""
    names = _names_of_molecules(elements)
    for name in itertools.cycle(rng.permutation(names).tolist()):
        single = _bare(molecule(name))
        single.info["group"] = f"molecule {name}"
        single.positions += rng.normal(scale=rng.uniform(*RATTLE) / 2, size=single.positions.shape)
        yield single
        cluster = single.copy()
        for other in rng.choice(names, size=int(rng.integers(1, 4))).tolist():
            cluster = _beside(cluster, _bare(molecule(other)), rng)
        cluster.info["group"] = f"molecule {name}"
        yield cluster


def _names_of_molecules(elements: Sequence[int]) -> list[str]:
    """Molecules of the G2 set, of two atoms and more, closed shells, that have only `elements`."""
    known = {chemical_symbols[z] for z in elements}
    whole = (name for name in g2.names if len(g2[name]) > 1 and not g2[name].get_initial_magnetic_moments().any())
    return [name for name in whole if set(g2[name].get_chemical_symbols()) <= known]


def _beside(cluster: Atoms, other: Atoms, rng: np.random.Generator) -> Atoms:
    """`cluster` with `other` turned at random and put as near as their covalent radii allow, times 1.5 to 2.5."""
    other.rotate(float(rng.uniform(0, 360)), rng.normal(size=3), center="COM")
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    other.positions += cluster.positions.mean(axis=0) - other.positions.mean(axis=0)
    sums = covalent_radii[cluster.numbers][:, None] + covalent_radii[other.numbers][None, :]
    wanted = rng.uniform(1.5, 2.5)
    while True:
        gaps = np.linalg.norm(cluster.positions[:, None] - other.positions[None, :], axis=-1)
        if (gaps / sums).min() >= wanted:
            joined: Atoms = cluster + other
            return joined
        other.positions += 0.2 * direction


def _pairs(elements: Sequence[int], rng: np.random.Generator, energies: Energies) -> Iterator[Atoms]:
    """Two atoms in empty space, at a random distance."""
    while True:
        a, b = sorted(int(z) for z in rng.choice(elements, size=2))
        distance = rng.uniform(0.6, 2.0) * (covalent_radii[a] + covalent_radii[b])
        atoms = Atoms([a, b], positions=[[0, 0, 0], [0, 0, distance]])
        atoms.info["group"] = f"pair {chemical_symbols[a]}-{chemical_symbols[b]}"
        yield atoms


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions)


def _apart(atoms: Atoms) -> bool:
    return len(neighbours(atoms, NEAREST)[0]) == 0
