"""Two simple force laws, measured on labelled frames: a pair potential, and the stiffness of bonds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from retemper.data.frames import FORCES
from retemper.data.geometry import by_atoms, neighbours

Array = np.ndarray
_PERIOD = np.searchsorted([2, 10, 18, 36, 54, 200], np.arange(120))  # of an element's number; 0 for H and He
_BADGER_OFFSET = np.array([0.01, 0.34, 0.60, 0.70, 0.80, 0.85])[_PERIOD]  # A
MIN_BONDS = 30  # bonds of two elements that measure a stiffness
BONDED = 1.3  # times the sum of covalent radii: longest bond


def badger(numbers_1: Array, numbers_2: Array, distance: Array) -> Array:
    """Stiffness of bonds in eV/A^2 by Badger's rule, within a factor of two to three from H2 to Cs2.

    k = 1.86 mdyn/A / (r/A - d_ij)^3 with d_ij by the periods of the two elements, here as sums
    of one offset an element; J. Chem. Phys. 2, 128 (1934); 3, 710 (1935).
    """
    short = np.maximum(distance - _BADGER_OFFSET[numbers_1] - _BADGER_OFFSET[numbers_2], 0.4)
    return np.asarray(1.86 * 6.241509 / short**3)


def _bonds(frame: Atoms) -> tuple[Array, Array, Array, Array]:
    """Bonded pairs of atoms, each once: first, second, distance, unit vector."""
    first, second, distance, vector = neighbours(frame, BONDED)
    once = (first < second) & (distance > 0)
    return first[once], second[once], distance[once], vector[once] / distance[once, None]


def badger_work(frame: Atoms, movement: Array) -> float:
    """Sum over bonds of stiffness times squared stretch, eV, for a movement of atoms [n_atoms, 3] in A."""
    first, second, distance, unit = _bonds(frame)
    stretch = ((movement[second] - movement[first]) * unit).sum(axis=1)
    return float((badger(frame.numbers[first], frame.numbers[second], distance) * stretch**2).sum())


def fit_pair_potential(frames: Sequence[Atoms], species: list[int], functions: int = 10) -> tuple[Array, float]:
    """Least-squares pair potential on forces: its energies [n_frames] and the share of force variance explained."""
    reach = 2.0  # times the sum of covalent radii
    index = np.full((120, 120), -1)
    for p, (a, b) in enumerate((a, b) for k, a in enumerate(species) for b in species[k:]):
        index[a, b] = index[b, a] = p
    size = (int(index.max()) + 1) * functions
    centres = np.linspace(0.7, reach, functions)
    width = centres[1] - centres[0]
    normal, rhs, total = np.zeros((size, size)), np.zeros(size), 0.0
    energies = []
    for frame in frames:
        first, second, distance, vector = neighbours(frame, reach)
        radii = covalent_radii[frame.numbers[first]] + covalent_radii[frame.numbers[second]]
        apart = distance > 0.3 * radii
        first, second, radii = first[apart], second[apart], radii[apart]
        x = (distance[apart] / radii)[:, None]
        unit = vector[apart] / distance[apart, None]
        bump = np.exp(-0.5 * ((x - centres) / width) ** 2)
        inside = np.clip((x - 0.7) / (reach - 0.7), 0, 1)
        cut = 0.5 * (1 + np.cos(np.pi * inside))
        slope = -0.5 * np.pi / (reach - 0.7) * np.sin(np.pi * inside) - cut * (x - centres) / width**2
        slope *= bump / radii[:, None]
        column = index[frame.numbers[first], frame.numbers[second]][:, None] * functions + np.arange(functions)
        rows = (3 * first[:, None] + np.arange(3))[:, :, None] * size + column[:, None, :]
        terms = unit[:, :, None] * slope[:, None, :]
        matrix = np.bincount(rows.ravel(), terms.ravel(), minlength=3 * len(frame) * size).reshape(-1, size)
        forces = frame.arrays[FORCES].ravel()
        normal += matrix.T @ matrix / len(frame)
        rhs += matrix.T @ forces / len(frame)
        total += float(forces @ forces) / len(frame)
        energies.append(np.bincount(column.ravel(), 0.5 * (bump * cut).ravel(), minlength=size))
    normal += 1e-4 * np.trace(normal) / size * np.eye(size)
    solution = np.linalg.lstsq(normal, rhs, rcond=None)[0]  # singular where no two atoms are in reach
    residual = total - 2 * solution @ rhs + solution @ normal @ solution
    return np.array(energies) @ solution, float(1 - residual / total) if total > 0 else 0.0


@dataclass(frozen=True)
class Stiffness:
    """Bonds between two elements: how many, the correlation of force with length, stiffness over Badger's rule."""

    name: str
    count: int
    correlation: float
    ratio: float


def bond_stiffness(frames: Sequence[Atoms], max_atoms: int = 5000) -> list[Stiffness]:
    """Stiffness of bonds from the force along them against their length, over that of `badger`.

    Each bond is compared with itself in other frames with the same atoms, or with all bonds
    between the two elements, whichever shows the force more clearly.
    """
    rows = []
    total = 0
    for number, group in enumerate(sorted(by_atoms(frames), key=len, reverse=True)):
        for k in np.random.default_rng(0).permutation(group)[:40]:
            frame = frames[k]
            first, second, distance, unit = _bonds(frame)
            forces = frame.arrays[FORCES]
            along = ((forces[second] - forces[first]) * unit).sum(axis=1) / 2
            species = np.sort(np.stack([frame.numbers[first], frame.numbers[second]]), axis=0)
            bond = (number * 1_000_000 + first) * 1_000_000 + second
            rows.append(np.stack([*species, distance, along, bond]))
            total += len(frame)
            if total > max_atoms:
                break
        if total > max_atoms:
            break
    table = np.concatenate(rows, axis=1) if rows else np.zeros((5, 0))
    stiffnesses = []
    for a, b in sorted({(int(a), int(b)) for a, b in table[:2].T}):
        distance, along, bond = table[2:, (table[0] == a) & (table[1] == b)]
        if len(distance) < MIN_BONDS:
            continue
        expected = float(badger(np.array(a), np.array(b), np.median(distance)))
        candidates = [_regress(*pair) for pair in (_same_bond(distance, along, bond), _all_bonds(distance, along))]
        fits = [c for c in candidates if c is not None]
        if fits:
            correlation, stiffness = max(fits, key=lambda m: abs(m[0]))
            name = f"{chemical_symbols[a]}-{chemical_symbols[b]}"
            stiffnesses.append(Stiffness(name, len(distance), correlation, stiffness / expected))
    return stiffnesses


def _same_bond(distance: Array, along: Array, bond: Array) -> tuple[Array, Array]:
    """Deviations from the mean of the same bond over frames, where at least three frames have it."""
    _, inverse, count = np.unique(bond, return_inverse=True, return_counts=True)
    stretch = distance - (np.bincount(inverse, distance) / count)[inverse]
    force = along - (np.bincount(inverse, along) / count)[inverse]
    keep = (count[inverse] >= 3) & (np.abs(stretch) < 0.15 * np.median(distance))
    return stretch[keep], force[keep]


def _all_bonds(distance: Array, along: Array) -> tuple[Array, Array]:
    """Deviations from the mean of all bonds, without the longest and shortest."""
    low, high = np.percentile(distance, [2, 98])
    keep = (distance >= low) & (distance <= high)
    return distance[keep] - distance[keep].mean(), along[keep] - along[keep].mean()


def _regress(stretch: Array, force: Array) -> tuple[float, float] | None:
    """Correlation of the restoring force with the stretch, and the stiffness."""
    xx, yy = float(stretch @ stretch), float(force @ force)
    if len(stretch) < MIN_BONDS or xx < 1e-8 * len(stretch) or yy == 0:
        return None
    xy = -float(stretch @ force)
    return xy / (xx * yy) ** 0.5, xy / xx
