"""Frames that are the same structure, exactly or nearly, also when moved, turned or reordered.

Candidates come from a k-d tree over numbers that do not change under translation, rotation,
reflection and exchange of like atoms, and change by no more than the atoms move; only they
are compared in full. Cost grows as n log n.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

from retemper.frames import structure_hash
from retemper.geometry import displacements, full_cells

Array = np.ndarray
WAVES = np.array(
    [
        *[(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, -1, 0), (1, 0, -1), (0, 1, -1)],
        *[(1, 1, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2)],
    ]
)
RADII = 16  # sorted distances from the centre that go into the tree


def near_pairs(frames: Sequence[Atoms], tolerance: float) -> list[tuple[int, int]]:
    """Pairs (i < j) of frames that are the same structure within `tolerance`.

    Parameters
    ----------
    frames
        Structures; periodic ones need a sane cell. Labels do not count.
    tolerance
        RMS displacement of the atoms, A; 0 finds only structures with equal
        `retemper.frames.structure_hash`. Without periodicity, the RMS change of the sorted
        distances between atoms of two elements is taken, which no motion of the whole, no
        reflection and no exchange of like atoms changes. With periodicity, cells must agree
        within `tolerance` in A and atoms move at fixed fractional coordinates, up to a
        translation and an exchange of like atoms; another choice of cell for the same
        crystal is not seen.

    Returns
    -------
    list
        Sorted pairs of indices.
    """
    groups: dict[tuple[bytes, bytes], list[int]] = defaultdict(list)
    for k, frame in enumerate(frames):
        key = structure_hash(frame).encode() if tolerance == 0 else np.sort(frame.numbers).tobytes()
        groups[key, frame.pbc.tobytes()].append(k)
    found = []
    for indices in groups.values():
        if len(indices) < 2:
            continue
        group = [frames[k] for k in indices]
        if tolerance == 0:
            local = np.array(np.triu_indices(len(group), 1)).T
        elif group[0].pbc.any():
            local = _periodic(group, tolerance)
        else:
            local = _molecules(group, tolerance)
        found += [(indices[i], indices[j]) for i, j in local]
    return sorted(found)


def _tree_pairs(vectors: Array, radius: float) -> Array:
    return np.asarray(cKDTree(vectors).query_pairs(radius, output_type="ndarray")).reshape(-1, 2)


def _by_species(frame: Atoms) -> Array:
    return np.argsort(frame.numbers, kind="stable")


def _molecules(group: Sequence[Atoms], tolerance: float) -> Array:
    """Near pairs [n, 2] among non-periodic frames of one composition."""
    orders = [_by_species(frame) for frame in group]
    species = group[0].numbers[orders[0]]
    positions = np.array([frame.positions[order] for frame, order in zip(group, orders, strict=True)])
    radii = np.linalg.norm(positions - positions.mean(axis=1, keepdims=True), axis=2)
    for z in np.unique(species):
        radii[:, species == z] = np.sort(radii[:, species == z], axis=1)
    keep = np.unique(np.linspace(0, len(species) - 1, RADII).astype(int))
    # sorting contracts distances, so the subset moves by no more than all atoms together
    pairs = _tree_pairs(radii[:, keep], 1.01 * tolerance * np.sqrt(len(species)) + 1e-9)
    same = [k for k, (i, j) in enumerate(pairs) if _distance_change(positions[i], positions[j], species) <= tolerance]
    return np.asarray(pairs[same])


def _distance_change(a: Array, b: Array, species: Array) -> float:
    """RMS change of the interatomic distances, sorted within each pair of elements."""
    if len(species) == 1:
        return 0.0
    first, second = np.triu_indices(len(species), 1)
    kind = np.minimum(species[first], species[second]) * 200 + np.maximum(species[first], species[second])
    da, db = pdist(a), pdist(b)
    return float(np.sqrt(np.mean((da[np.lexsort((da, kind))] - db[np.lexsort((db, kind))]) ** 2)))


def _standard_cells(cells: Array) -> Array:
    """Cells turned so that the first vector is along x and the second in the xy plane: six numbers each, A."""
    turned = np.linalg.cholesky(cells @ cells.transpose(0, 2, 1))
    return np.asarray(turned[:, *np.tril_indices(3)])


def _periodic(group: Sequence[Atoms], tolerance: float) -> Array:
    """Near pairs [n, 2] among periodic frames of one composition."""
    orders = [_by_species(frame) for frame in group]
    species = group[0].numbers[orders[0]]
    positions = np.array([frame.positions[order] for frame, order in zip(group, orders, strict=True)])
    cells = full_cells(np.array([frame.cell.array for frame in group]))
    fractional = np.linalg.solve(cells.transpose(0, 2, 1), positions.transpose(0, 2, 1)).transpose(0, 2, 1)
    standard = _standard_cells(cells)
    _, kinds = np.unique(species, return_inverse=True)
    weight = 1 + 0.4 * kinds
    length = np.linalg.norm(np.einsum("kc,nci->nki", WAVES, np.linalg.inv(cells).transpose(0, 2, 1)), axis=2)
    factor = np.empty((len(group), len(WAVES)))
    for number, wave in enumerate(WAVES):
        factor[:, number] = np.abs((weight * np.exp(2j * np.pi * (fractional @ wave))).sum(axis=1))
    # |S(k)| changes by at most 2 pi |k| |w| |displacements|: this makes it a length
    factor /= 2 * np.pi * length * np.sqrt((weight**2).sum() * len(species))
    slack = 2 + np.sqrt(len(WAVES) / len(species)) + np.sqrt(6)
    pairs = _tree_pairs(np.concatenate([factor, standard], axis=1), slack * tolerance + 1e-9)
    pairs = pairs[np.abs(standard[pairs[:, 0]] - standard[pairs[:, 1]]).max(axis=1, initial=0) <= tolerance + 1e-9]
    same = np.zeros(len(pairs), dtype=bool)
    pbc = group[0].pbc
    original = np.array([frame.positions for frame in group])
    as_written = np.array([(frame.numbers == group[0].numbers).all() for frame in group])
    for part in np.array_split(np.arange(len(pairs)), 1 + len(pairs) * len(species) // 200_000):
        i, j = pairs[part].T
        for atoms, usable in ((original, as_written[i] & as_written[j]), (positions, np.ones(len(part), dtype=bool))):
            movement, _ = displacements(atoms, cells, pbc, i, j)
            same[part] |= usable & (np.sqrt((movement**2).sum(axis=2).mean(axis=1)) <= tolerance)
    for k in np.flatnonzero(~same):
        one, other = pairs[k]
        same[k] = _reordered(fractional[one], fractional[other], cells[one], species, pbc, tolerance)
    return np.asarray(pairs[same])


def _reordered(a: Array, b: Array, cell: Array, species: Array, pbc: Array, tolerance: float) -> bool:
    """Whether fractional coordinates agree after a translation and an exchange of like atoms."""
    if not _same_surroundings(a, b, cell, species, pbc, tolerance):
        return False
    kinds, counts = np.unique(species, return_counts=True)
    rare = np.flatnonzero(species == kinds[counts.argmin()])
    for target in rare:
        shift = b[target] - a[rare[0]]
        moves = np.zeros_like(a)
        for z in kinds:
            like = np.flatnonzero(species == z)
            step = b[like][None] - a[like][:, None] - shift
            step -= np.round(step) * pbc
            rows, columns = linear_sum_assignment(np.linalg.norm(step @ cell, axis=2) ** 2)
            moves[like] = (step @ cell)[rows, columns]
        moves -= moves.mean(axis=0)
        if np.sqrt((moves**2).sum(axis=1).mean()) <= tolerance:
            return True
    return False


def _same_surroundings(a: Array, b: Array, cell: Array, species: Array, pbc: Array, tolerance: float) -> bool:
    """Cheap test before atoms are matched: the sorted nearest distances agree."""
    nearest = []
    for points in (a, b):
        step = points[None] - points[:, None]
        step -= np.round(step) * pbc
        distance = np.linalg.norm(step @ cell, axis=2)
        np.fill_diagonal(distance, np.inf)
        least = distance.min(axis=1)
        nearest.append(least[np.lexsort((least, species))])
    if len(species) == 1:
        return True
    return float(np.sqrt(np.mean((nearest[0] - nearest[1]) ** 2))) <= 2 * tolerance
