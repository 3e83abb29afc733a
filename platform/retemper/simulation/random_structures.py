"""Random structures: compositions, crystals with symmetry (PyXtal) and packings without."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from retemper.core.errors import RetemperError
from retemper.data.geometry import neighbours

NEAREST = 0.8  # times the sum of covalent radii: no start is closer
VOLUME_FACTOR, SMALLEST_VOLUME = 2.2, 6.0  # atomic volume: times the covalent sphere, and at least A^3
TRIES = 200
PYXTAL_TRIES = 12


def compositions(elements: Sequence[int], number: int, seed: int = 0, max_atoms: int = 10) -> list[dict[int, int]]:
    """`number` compositions {atomic number: atoms} of one to three of `elements`, 4 to `max_atoms` atoms each.

    The first ones are the elements themselves and equal pairs in turn, so that all of a small
    set occur; the rest is drawn.
    """
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for i, a in enumerate(elements) for b in elements[i + 1 :]]
    first = [{z: 6} for z in elements] + [{a: 4, b: 4} for a, b in pairs]
    order = rng.permutation(len(first)).tolist()
    selection = [first[i] for i in order[: max(1, number * 2 // 3)]]
    attempts = 0
    while len(selection) < number:
        species = rng.choice(elements, size=min(len(elements), int(rng.integers(1, 4))), replace=False)
        counts = {int(z): int(rng.integers(1, 5)) for z in sorted(species)}
        attempts += 1
        if 4 <= sum(counts.values()) <= max_atoms and (counts not in selection or attempts > TRIES):
            selection.append(counts)
    return selection[:number]


def random_structures(composition: dict[int, int], number: int, seed: int = 0) -> list[Atoms]:
    """`number` random cells of a composition: every other one of a random space group, the rest without symmetry.

    ``info["origin"]`` says which: "P-1 (2)" or "packing".
    """
    rng = np.random.default_rng([seed, *sorted(composition), *composition.values()])
    structures = []
    for k in range(number):
        atoms = symmetric(composition, rng) if k % 2 == 0 else None
        structures.append(atoms if atoms is not None else packing(composition, rng))
    return structures


def symmetric(composition: dict[int, int], rng: np.random.Generator) -> Atoms | None:
    """A crystal of a random space group that takes the composition; `None` after some fruitless tries.

    S. Fredericks et al., Comput. Phys. Commun. 261, 107810 (2021) (PyXtal).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyxtal import pyxtal
        from pyxtal.msg import Comp_CompatibilityError, VolumeError

        for _ in range(PYXTAL_TRIES):
            crystal = pyxtal()
            group = int(rng.integers(2, 231))
            try:
                crystal.from_random(
                    3,
                    group,
                    [chemical_symbols[z] for z in composition],
                    list(composition.values()),
                    random_state=int(rng.integers(2**31)),
                    max_count=3,
                )
            except (Comp_CompatibilityError, VolumeError, RuntimeError):
                continue
            if crystal.valid:
                atoms = crystal.to_ase()
                plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell.array, pbc=True)
                if len(plain) == sum(composition.values()) and _nearest(plain) > NEAREST:
                    plain.info["origin"] = f"{crystal.group.symbol} ({group})"
                    return plain
    return None


def packing(composition: dict[int, int], rng: np.random.Generator) -> Atoms:
    """Atoms at random places in a random cell; the cell grows when they do not fit."""
    numbers = np.repeat(list(composition), list(composition.values()))
    volume = VOLUME_FACTOR * 4 / 3 * np.pi * covalent_radii[numbers] ** 3
    target = float(np.maximum(volume, SMALLEST_VOLUME).sum()) * rng.uniform(0.8, 1.4)
    for attempt in range(TRIES):
        cell = np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
        cell *= (target * 1.03**attempt / abs(np.linalg.det(cell))) ** (1 / 3)
        atoms = Atoms(numbers, rng.random((len(numbers), 3)) @ cell, cell=cell, pbc=True)
        for _ in range(10):  # push the nearest ones apart
            first, second, distance, vector = neighbours(atoms, NEAREST * 1.1)
            if len(first) == 0:
                break
            push = (NEAREST * 1.15 * (covalent_radii[numbers][first] + covalent_radii[numbers][second]) - distance) / 2
            move = np.zeros((len(atoms), 3))
            np.add.at(move, first, -vector / distance[:, None] * push[:, None])
            atoms.positions += move
        if _nearest(atoms) > NEAREST:
            atoms.info["origin"] = "packing"
            return atoms
    raise RetemperError(f"No random cell of {composition} was found.", fix="use fewer atoms")


def nearest_ratio(atoms: Atoms) -> float:
    """Smallest distance over the sum of covalent radii; infinite without a pair nearer than 1.5 times that."""
    return _nearest(atoms, 1.5)


def _nearest(atoms: Atoms, reach: float = NEAREST) -> float:
    first, second, distance, _ = neighbours(atoms, reach)
    if len(first) == 0:
        return float("inf")
    return float((distance / (covalent_radii[atoms.numbers[first]] + covalent_radii[atoms.numbers[second]])).min())
