"""Complex crystals and salts on their way to a minimum of the labeller's own energy.

Prototypes alone leave holes where real compounds live: several cations, oxyanions, low symmetry.
Each group here is one random start, relaxed with its cell for some steps; the frames are points of
that path and strained, rattled copies of its end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from families import closest, radius, random_cells, rattle, seed_of, strain
from trajectories import packed

CHARGES = {
    "H": 1, "Li": 1, "Na": 1, "K": 1, "Mg": 2, "Ca": 2, "Zn": 2, "Cu": 2, "B": 3, "Al": 3, "Ti": 4, "Si": 4, "Ge": 4, "P": 5,
    "O": -2, "S": -2, "F": -1, "Cl": -1, "Br": -1, "I": -1, "N": -3, "C": -4,
}  # fmt: skip
CATIONS = [s for s, q in CHARGES.items() if q > 0]
ANIONS = [s for s, q in CHARGES.items() if q < 0]

TETRAHEDRON = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) / 3**0.5
TRIANGLE = np.array([(1, 0, 0), (-0.5, 0.75**0.5, 0), (-0.5, -(0.75**0.5), 0)])
PYRAMID = TETRAHEDRON[:3]
OCTAHEDRON = np.vstack([np.eye(3), -np.eye(3)])
LINE = np.array([(1.0, 0, 0)])
# centre, ligand, shape, charge
IONS = {
    "NO3": ("N", "O", TRIANGLE, -1), "CO3": ("C", "O", TRIANGLE, -2), "BO3": ("B", "O", TRIANGLE, -3),
    "SO4": ("S", "O", TETRAHEDRON, -2), "PO4": ("P", "O", TETRAHEDRON, -3), "ClO4": ("Cl", "O", TETRAHEDRON, -1),
    "SiO4": ("Si", "O", TETRAHEDRON, -4), "GeO4": ("Ge", "O", TETRAHEDRON, -4), "PS4": ("P", "S", TETRAHEDRON, -3),
    "BF4": ("B", "F", TETRAHEDRON, -1), "BH4": ("B", "H", TETRAHEDRON, -1), "AlH4": ("Al", "H", TETRAHEDRON, -1),
    "AlCl4": ("Al", "Cl", TETRAHEDRON, -1), "ZnCl4": ("Zn", "Cl", TETRAHEDRON, -2), "SO3": ("S", "O", PYRAMID, -2),
    "ClO3": ("Cl", "O", PYRAMID, -1), "BrO3": ("Br", "O", PYRAMID, -1), "IO3": ("I", "O", PYRAMID, -1),
    "PF6": ("P", "F", OCTAHEDRON, -1), "SiF6": ("Si", "F", OCTAHEDRON, -2), "TiF6": ("Ti", "F", OCTAHEDRON, -2),
    "OH": ("O", "H", LINE, -1), "CN": ("C", "N", LINE, -1), "C2": ("C", "C", LINE, -2), "O2": ("O", "O", LINE, -2),
    "S2": ("S", "S", LINE, -2), "NH2": ("N", "H", PYRAMID[:2], -1), "NH4": ("N", "H", TETRAHEDRON, 1),
}  # fmt: skip
SALT_CATIONS = "Li Na K Mg Ca Zn Cu Al NH4".split()


def ion(name: str) -> Atoms:
    """A polyatomic ion with ideal angles, or the atom of that symbol."""
    if name not in IONS:
        return Atoms(name)
    centre, ligand, shape, _ = IONS[name]
    distance = 0.95 * (radius(centre) + radius(ligand))
    return Atoms([centre] + [ligand] * len(shape), positions=np.vstack([np.zeros(3), distance * shape]))


def charge(name: str) -> int:
    return IONS[name][3] if name in IONS else CHARGES[name]


def balanced(names: tuple[str, ...], largest: int, rng: np.random.Generator) -> tuple[int, ...] | None:
    """Counts of `names` up to `largest` each that are neutral together, one choice at random."""
    found = [
        counts
        for counts in itertools.product(range(1, largest + 1), repeat=len(names))
        if sum(n * charge(s) for n, s in zip(counts, names, strict=True)) == 0
    ]
    return found[rng.integers(len(found))] if found else None


def relaxing(calculator, steps: int, copies: int, energy: Callable[[Atoms], float]):
    """A function that yields frames of one relaxation and copies of its end."""

    def frames(atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
        atoms = atoms.copy()
        scales = np.linspace(0.8, 1.2, 7)
        trials = [atoms.copy() for _ in scales]
        for trial, scale in zip(trials, scales, strict=True):
            trial.set_cell(trial.cell * scale, scale_atoms=True)
        sound = [t for t in trials if closest(t) > 0.6]
        if not sound:
            return
        atoms = min(sound, key=energy)
        yield atoms.copy()
        atoms.calc = calculator
        optimizer = FIRE(FrechetCellFilter(atoms), logfile=None, maxstep=0.15)
        for part in (steps // 3, steps - steps // 3):
            optimizer.run(fmax=0.1, steps=part)
            if not np.isfinite(atoms.positions).all() or closest(atoms) < 0.5:
                return
            yield Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
        end = atoms.copy()
        for k in range(copies):
            yield rattle(strain(end, rng.uniform(0.85, 1.15), 0.03, rng), [0.05, 0.12, 0.25][k % 3], rng)

    return frames


def compounds(calculator, energy: Callable[[Atoms], float]) -> Iterator[tuple[str, str, Callable]]:
    """Neutral compounds of two or three elements in random space groups, at most 14 atoms a cell."""
    from pyxtal import pyxtal
    from pyxtal.msg import Comp_CompatibilityError

    follow = relaxing(calculator, 15, 3, energy)

    def build(names: tuple[str, ...], rng: np.random.Generator) -> Iterator[Atoms]:
        counts = balanced(names, 6, rng)
        if counts is None or sum(counts) > 14:
            return
        units = int(rng.integers(1, 14 // sum(counts) + 1))
        for _ in range(40):
            start = pyxtal(random_state=np.random.default_rng(int(rng.integers(2**31))))
            try:
                start.from_random(3, int(rng.integers(1, 231)), list(names), [units * n for n in counts])
            except Comp_CompatibilityError:
                continue
            if start.valid and len(atoms := start.to_ase()) <= 14:
                yield from follow(atoms, rng)
                return

    rng = np.random.default_rng(seed_of("compounds"))
    for k in range(250):
        kind = rng.random()
        cations, anions = (2, 1) if kind < 0.6 else (1, 2) if kind < 0.8 else (1, 1)
        names = (*rng.choice(CATIONS, cations, replace=False), *rng.choice(ANIONS, anions, replace=False))
        names = tuple(str(s) for s in names)
        yield f"{''.join(names)}-{k}", "compound", lambda r, n=names: build(n, r)


def salts(calculator, energy: Callable[[Atoms], float]) -> Iterator[tuple[str, str, Callable]]:
    """Cations with polyatomic anions, packed at random, at most 20 atoms a cell."""
    follow = relaxing(calculator, 18, 3, energy)

    def build(names: tuple[str, ...], rng: np.random.Generator) -> Iterator[Atoms]:
        counts = balanced(names, 4, rng)
        if counts is None:
            return
        parts = [ion(name) for name, n in zip(names, counts, strict=True) for _ in range(n)]
        if sum(map(len, parts)) > 20:
            return
        size = sum(4 / 3 * np.pi * (radius(s) + 0.3) ** 3 for part in parts for s in part.symbols)
        box = (size / 0.75) ** (1 / 3)
        for _ in range(25):
            atoms = packed(parts, box, True, rng)
            if atoms is not None:
                yield from follow(atoms, rng)
                return
            box *= 1.03

    rng = np.random.default_rng(seed_of("salts"))
    anions = [name for name in IONS if name != "NH4"]
    for k, anion in enumerate(anions * 3):
        names = (*(str(s) for s in rng.choice(SALT_CATIONS, 1 + int(rng.random() < 0.3), replace=False)), anion)
        yield f"{''.join(names)}-{k}", "salt", lambda r, n=names: build(n, r)


def searches(calculator, energy: Callable[[Atoms], float]) -> Iterator[tuple[str, str, Callable]]:
    """The random cells again, as a structure search relaxes them."""
    follow = relaxing(calculator, 12, 1, energy)

    def build(start: Callable, rng: np.random.Generator) -> Iterator[Atoms]:
        for atoms in start(rng):
            yield from follow(atoms, rng)

    for name, _, start in itertools.islice(random_cells(), 200):
        yield f"{name}-relaxed", "search", lambda r, s=start: build(s, r)
