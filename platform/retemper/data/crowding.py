"""How near atoms are and how many pairs a model would see, counted without making the list of pairs.

A cell of 0.01 A has a billion neighbours within a cut-off of 5 A: the list would fill the memory of any machine. Here
they are counted by a k-d tree, after cells that are too small for that were found by their heights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

LOWEST = 0.5  # A, height of a periodic cell
THINNEST = 0.5  # A^3/atom, volume of a cell that is periodic in three directions
NEAREST = 0.4  # times the sum of covalent radii: distance of two atoms, as for data (dataset.min_distance)
MOST_IMAGES = 1e6  # atoms times the images that each sees of itself


@dataclass(frozen=True)
class Crowding:
    """What is known of the neighbours in a structure."""

    pairs: int  # ordered, within the cut-off, images included: edges of MACE's graph
    distance: float  # A, of the two atoms that are nearest by their radii; infinite for a single one
    ratio: float  # that distance by the sum of their covalent radii


def heights(atoms: Atoms) -> np.ndarray:
    """Distances (A) between opposite faces of the cell, infinite along directions that are not periodic."""
    cell = np.array(atoms.cell.complete())
    distances = np.full(3, np.inf)
    areas = np.linalg.norm(np.cross(np.roll(cell, -1, axis=0), np.roll(cell, -2, axis=0)), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        height = np.abs(np.linalg.det(cell)) / areas
    distances[atoms.pbc] = np.nan_to_num(height, nan=0.0)[atoms.pbc]
    return distances


def images(atoms: Atoms, cutoff: float) -> float:
    """Atoms times the images that each sees of itself within `cutoff` (A), about."""
    with np.errstate(divide="ignore", over="ignore"):
        return float(len(atoms) * np.prod(np.maximum(1.0, 2.0 * cutoff / heights(atoms))))


def cell_fault(atoms: Atoms) -> str:
    """What is wrong with the cell, or ""."""
    if not atoms.pbc.any():
        return ""
    lowest = float(heights(atoms).min())
    if lowest < LOWEST:
        return f"its cell has a height of {lowest:.3g} A, expected at least {LOWEST:g}"
    volume = abs(float(np.linalg.det(atoms.cell.array))) / len(atoms)
    if atoms.pbc.all() and volume < THINNEST:
        return f"its cell has {volume:.3g} A^3 an atom, expected at least {THINNEST:g}"
    return ""


def count(atoms: Atoms, cutoff: float) -> Crowding:
    """Neighbours within `cutoff` (A) of a structure whose cell has not `collapsed`."""
    from scipy.spatial import cKDTree

    boxed = atoms.copy()
    boxed.wrap()
    positions, radii = boxed.positions, covalent_radii[boxed.numbers]
    reach = [int(np.ceil(cutoff / height)) if np.isfinite(height) else 0 for height in heights(atoms)]
    steps = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), axis=-1).reshape(-1, 3)
    low, high = positions.min(axis=0) - cutoff, positions.max(axis=0) + cutoff
    places, owners = [positions], [np.arange(len(positions))]
    for step in steps[np.any(steps != 0, axis=1)] @ boxed.cell.array:
        inside = np.all((positions + step >= low) & (positions + step <= high), axis=1)
        places.append(positions[inside] + step)
        owners.append(np.flatnonzero(inside))
    all_places, element = np.concatenate(places), np.concatenate(owners)
    tree = cKDTree(all_places)
    pairs = int(cKDTree(positions).count_neighbors(tree, cutoff)) - len(positions)
    if len(all_places) < 2:
        return Crowding(pairs, np.inf, np.inf)
    distance, index = tree.query(positions, k=2)
    neighbour = np.where(index[:, 1] == np.arange(len(positions)), index[:, 0], index[:, 1])
    ratio = distance[:, 1] / (radii + radii[element[neighbour]])
    nearest = int(ratio.argmin())
    return Crowding(pairs, float(distance[nearest, 1]), float(ratio[nearest]))
