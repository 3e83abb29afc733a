"""Distances within a frame and displacements between frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list

from retemper.data import charge

Array = np.ndarray


def neighbours(atoms: Atoms, reach: float, longest: float = np.inf) -> tuple[Array, Array, Array, Array]:
    """Ordered pairs of atoms nearer than `reach` times the sum of their covalent radii, images included.

    Parameters
    ----------
    atoms
        Any periodicity; a periodic frame needs a sane cell.
    reach
        Multiple of the sum of covalent radii (Cordero et al., Dalton Trans. 2832 (2008)).
    longest
        A; an atom's share of a distance is cut at half of it.

    Returns
    -------
    first, second
        Indices [n_pairs]; each pair comes in both orders.
    distance
        [n_pairs], A.
    vector
        [n_pairs, 3] from first to second, A.
    """
    cutoff = np.minimum(reach * covalent_radii[atoms.numbers], longest / 2)
    cell = full_cells(atoms.cell.array[None])[0]
    origin = np.zeros(3)
    if not atoms.pbc.any():
        margin = 2 * cutoff.max()
        cell = np.diag(np.ptp(atoms.positions, axis=0) + 2 * margin)
        origin = atoms.positions.min(axis=0) - margin
    # space is binned by the cutoff: a larger one keeps the bins of a large box few
    search = np.maximum(cutoff, np.linalg.norm(cell, axis=1).max() / 80)
    first, second, distance, vector = neighbour_list(
        "ijdD", positions=atoms.positions, cell=cell, pbc=atoms.pbc, cell_origin=origin, cutoff=search
    )
    within = distance < cutoff[first] + cutoff[second]
    return first[within], second[within], distance[within], vector[within]


def full_cells(cells: Array) -> Array:
    """Cells [..., 3, 3] with missing (zero) vectors replaced by unit vectors normal to the others."""
    missing = np.abs(np.linalg.det(cells)) == 0
    if not missing.any():
        return cells
    full = cells.copy()
    full[missing] = [complete_cell(cell) for cell in cells[missing]]
    return full


def heights(cell: Array) -> Array:
    """Distances [3] between opposite faces of a cell [3, 3], A; zero for a flat one."""
    if np.linalg.det(cell) == 0:
        return np.zeros(3)
    return np.asarray(1 / np.linalg.norm(np.linalg.inv(cell), axis=0))


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of frames with the same atoms, in the same or another order, and the same periodicity."""

    numbers: Array  # [n_frames, n_atoms]
    positions: Array  # [n_frames, n_atoms, 3] A
    cells: Array  # [n_frames, 3, 3] A
    pbc: Array  # [3]

    @classmethod
    def of(cls, frames: Sequence[Atoms]) -> Coordinates:
        rows = [(frame.numbers, frame.positions, frame.cell.array, frame.pbc) for frame in frames]
        numbers, positions, cells = (np.array([row[k] for row in rows]) for k in range(3))
        return cls(numbers, positions, cells, rows[0][3])

    def by_species(self) -> Array:
        """Positions [n_frames, n_atoms, 3] with atoms in order of their number."""
        order = np.argsort(self.numbers, axis=1, kind="stable")
        return np.asarray(np.take_along_axis(self.positions, order[:, :, None], axis=1))


def by_atoms(frames: Sequence[Atoms], state: bool = True) -> list[list[int]]:
    """Indices of frames that have the same atoms in the same order and the same periodicity.

    With `state` the same charge and spin as well: such frames lie on one energy surface.
    """
    groups: dict[tuple[bytes, bytes, str], list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        state_key = repr(charge.special(frame)) if state else ""
        groups[frame.numbers.tobytes(), frame.pbc.tobytes(), state_key].append(k)
    return list(groups.values())


def rotations(reference: Array, moved: Array) -> Array:
    """Proper rotations R [n, 3, 3] that bring `moved` @ R nearest to `reference`, both [n, atoms, 3] and centred.

    Kabsch, Acta Cryst. A32, 922 (1976).
    """
    left, _, right = np.linalg.svd(np.einsum("nai,naj->nij", moved, reference))
    sign = np.ones(left.shape[:2])
    sign[:, 2] = np.sign(np.linalg.det(left @ right))
    return np.asarray(left * sign[:, None, :] @ right)


def displacements(positions: Array, cells: Array, pbc: Array, first: Array, second: Array) -> tuple[Array, Array]:
    """Movement of atoms between pairs of frames, without rigid motion.

    Parameters
    ----------
    positions
        [n_frames, n_atoms, 3] of frames with the same atoms in the same order, A.
    cells
        [n_frames, 3, 3], A.
    pbc
        [3]. With any periodicity, movement is at fixed fractional coordinates of the mean
        cell (homogeneous strain does not count) and by the nearest image; without, after
        the best superposition.
    first, second
        Frame indices [n_pairs].

    Returns
    -------
    movement
        [n_pairs, n_atoms, 3] in the orientation of the first frame, A.
    rotation
        [n_pairs, 3, 3] that turns row vectors of the second frame into that orientation.
    """
    if pbc.any():
        cells = full_cells(cells)
        fractional = np.linalg.solve(cells.transpose(0, 2, 1), positions.transpose(0, 2, 1)).transpose(0, 2, 1)
        change = fractional[second] - fractional[first]
        change -= change[:, :1]
        change -= np.round(change) * pbc
        change -= change.mean(axis=1, keepdims=True)
        change -= np.round(change) * pbc
        movement = change @ ((cells[first] + cells[second]) / 2)
        return movement, np.broadcast_to(np.eye(3), (len(first), 3, 3))
    centred = positions - positions.mean(axis=1, keepdims=True)
    rotation = rotations(centred[first], centred[second])
    return centred[second] @ rotation - centred[first], rotation
