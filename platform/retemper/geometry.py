"""Distances and displacements: neighbours within a frame, and frames that lie close to each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.geometry import complete_cell
from matscipy.neighbours import neighbour_list

from retemper.frames import ENERGY, FORCES, STRESS

Array = np.ndarray


def neighbours(atoms: Atoms, cutoff: float) -> tuple[Array, Array, Array, Array]:
    """Ordered pairs of atoms nearer than `cutoff`, periodic images included.

    Parameters
    ----------
    atoms
        Any periodicity; a periodic frame needs a sane cell.
    cutoff
        In A.

    Returns
    -------
    first, second
        Indices [n_pairs]; each pair comes in both orders.
    distance
        [n_pairs], A.
    vector
        [n_pairs, 3] from first to second, A.
    """
    cell = complete_cell(atoms.cell.array)
    origin = np.zeros(3)
    if not atoms.pbc.any():
        low = atoms.positions.min(axis=0)
        cell = np.diag(np.ptp(atoms.positions, axis=0) + 2 * cutoff)
        origin = low - cutoff
    # matscipy bins space by the cutoff: a large one keeps the bins of a large box few
    search = max(cutoff, float(np.linalg.norm(cell, axis=1).max()) / 40)
    first, second, distance, vector = neighbour_list(
        "ijdD", positions=atoms.positions, cell=cell, pbc=atoms.pbc, cell_origin=origin, cutoff=search
    )
    near = distance < cutoff
    return first[near], second[near], distance[near], vector[near]


def heights(cell: Array) -> Array:
    """Distances between opposite faces of cells [..., 3, 3], A: shape [..., 3]; 0 for a flat cell."""
    volume = np.abs(np.linalg.det(cell))
    faces = np.stack([np.cross(cell[..., 1, :], cell[..., 2, :]), np.cross(cell[..., 2, :], cell[..., 0, :])], axis=-2)
    faces = np.concatenate([faces, np.cross(cell[..., 0, :], cell[..., 1, :])[..., None, :]], axis=-2)
    area = np.linalg.norm(faces, axis=-1)
    return np.divide(volume[..., None], area, out=np.zeros_like(area), where=area > 0)


def by_atoms(frames: Sequence[Atoms]) -> list[list[int]]:
    """Indices of frames that have the same atoms in the same order and the same periodicity."""
    groups: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        groups[frame.numbers.tobytes(), frame.pbc.tobytes()].append(k)
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
        cells = np.array([complete_cell(cell) for cell in cells])
        fractional = np.linalg.solve(cells.transpose(0, 2, 1), positions.transpose(0, 2, 1)).transpose(0, 2, 1)
        moved = fractional[second] - fractional[first]
        moved -= moved[:, :1]
        moved -= np.round(moved) * pbc
        moved -= moved.mean(axis=1, keepdims=True)
        moved -= np.round(moved) * pbc
        movement = moved @ ((cells[first] + cells[second]) / 2)
        return movement, np.broadcast_to(np.eye(3), (len(first), 3, 3))
    centred = positions - positions.mean(axis=1, keepdims=True)
    rotation = rotations(centred[first], centred[second])
    return centred[second] @ rotation - centred[first], rotation


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of frames near each other, all arrays [n_pairs].

    `rms` is the RMS movement in A, `strain` the largest component of the strain between the
    cells, `energy` the difference E_b - E_a, `force_work` the sum of (F_a + F_b)/2 . dx and
    `stress_work` V s:e, in eV (NaN without stress).
    """

    rms: Array
    strain: Array
    energy: Array
    force_work: Array
    stress_work: Array


def close_pairs(frames: Sequence[Atoms], per_group: int = 120, nearest: int = 3) -> ClosePairs:
    """For each of at most `per_group` frames with the same atoms, the pairs with its `nearest` others."""
    rows = [_pairs_of([frames[k] for k in group[:per_group]], nearest) for group in by_atoms(frames) if len(group) > 1]
    table = np.concatenate(rows, axis=1) if rows else np.zeros((5, 0))
    return ClosePairs(*table)


def _pairs_of(group: Sequence[Atoms], nearest: int) -> Array:
    positions = np.array([frame.positions for frame in group])
    forces = np.array([frame.arrays[FORCES] for frame in group])
    energies = np.array([frame.info[ENERGY] for frame in group])
    cells = np.array([frame.cell.array for frame in group])
    stress = np.array([np.reshape(frame.info.get(STRESS, np.full(9, np.nan)), (3, 3)) for frame in group])
    pbc = group[0].pbc
    first, second = np.triu_indices(len(group), 1)
    rms = np.empty(len(first))
    for part in np.array_split(np.arange(len(first)), 1 + len(first) * positions.shape[1] // 200_000):
        movement, _ = displacements(positions, cells, pbc, first[part], second[part])
        rms[part] = np.sqrt((movement**2).sum(axis=2).mean(axis=1))
    table = np.full((len(group), len(group)), np.inf)
    table[first, second] = table[second, first] = rms
    chosen = np.argsort(table, axis=1)[:, : min(nearest, len(group) - 1)]
    low, high = np.sort(np.stack([np.repeat(np.arange(len(group)), chosen.shape[1]), chosen.ravel()]), axis=0)
    first, second = np.unique(np.stack([low, high]), axis=1)
    movement, rotation = displacements(positions, cells, pbc, first, second)
    mean_force = (forces[first] + forces[second] @ rotation) / 2
    force_work = (mean_force * movement).sum(axis=(1, 2))
    strain = np.zeros(len(first))
    stress_work = np.full(len(first), np.nan)
    if pbc.all():
        mean_cell = (cells[first] + cells[second]) / 2
        gradient = np.linalg.solve(mean_cell, cells[second] - cells[first])
        symmetric = (gradient + gradient.transpose(0, 2, 1)) / 2
        strain = np.abs(symmetric).max(axis=(1, 2))
        volume = np.abs(np.linalg.det(mean_cell))
        stress_work = volume * ((stress[first] + stress[second]) / 2 * symmetric).sum(axis=(1, 2))
    return np.stack([table[first, second], strain, energies[second] - energies[first], force_work, stress_work])
