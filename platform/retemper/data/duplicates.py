"""Frames that are the same structure, exactly or nearly, also when moved, turned or reordered.

Candidates come from k-d trees over a few numbers a frame that translation and rotation leave
alone; only candidates are compared in full. Cost grows as n log n. Of a set that is not in memory
(`retemper.data.frame_store`) only these numbers are held, for the frames of one composition at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ase import Atoms
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

from retemper.data import charge
from retemper.data.frame_store import Picked
from retemper.data.frames import structure_hash
from retemper.data.geometry import Coordinates, displacements, full_cells

Array = np.ndarray
DIMENSIONS = 16  # of the trees
MAX_DISTANCES = 3000  # distances of a molecule that are projected
MANY_ATOMS = 1000  # of a frame, above which copies are sought with the atoms in the same order alone
BLOCK_ATOMS = 500_000  # whose coordinates are in memory at a time
REORDERED = 0.1  # times the tolerance, for copies whose atoms were exchanged
WAVES = np.array(
    [
        *[(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, -1, 0), (1, 0, -1), (0, 1, -1)],
        *[(1, 1, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2)],
    ]
)


def near_pairs(frames: Sequence[Atoms], tolerance: float) -> list[tuple[int, int]]:
    """Pairs (i < j) of frames that are the same structure within `tolerance`.

    Parameters
    ----------
    frames
        Structures; periodic ones need a sane cell. Labels do not count; charge and spin do: an ion is not its
        neutral molecule.
    tolerance
        RMS displacement, A. Without periodicity after the best superposition; with it, at
        fixed fractional coordinates, up to a translation, for cells that agree within
        `tolerance` once turned alike. Another choice of cell for the same crystal is not
        seen. Copies of up to `MANY_ATOMS` atoms in which like atoms were exchanged, or a molecule was mirrored,
        are found within a tenth of it, and with them their own near copies. 0 finds only structures with equal
        `retemper.data.frames.structure_hash`.

    Returns
    -------
    list
        Sorted pairs of indices.
    """
    if tolerance == 0:
        return _pairs_in(frames, lambda frame: structure_hash(frame).encode(), _all_pairs)
    same_order = _pairs_in(
        frames, lambda frame: frame.numbers.tobytes(), lambda group: _displaced_pairs(group, tolerance)
    )
    repeated = {j for _, j in same_order}
    small = (k for k, frame in enumerate(frames) if k not in repeated and len(frame) <= MANY_ATOMS)
    first = np.fromiter(small, dtype=np.int64)
    reordered = _pairs_in(
        Picked(frames, first),
        lambda frame: np.sort(frame.numbers).tobytes(),
        lambda group: (_crystals if group[0].pbc.any() else _molecules)(group, REORDERED * tolerance),
    )
    copies: dict[int, list[int]] = {int(k): [int(k)] for pair in reordered for k in first[list(pair)]}
    for i, j in same_order:
        if i in copies:
            copies[i].append(j)
    reordered_copies = {(a, b) for i, j in reordered for a in copies[int(first[i])] for b in copies[int(first[j])]}
    return sorted({*same_order, *((min(pair), max(pair)) for pair in reordered_copies if pair[0] != pair[1])})


def _pairs_in(
    frames: Sequence[Atoms], key: Callable[[Atoms], bytes], search: Callable[[Sequence[Atoms]], Array]
) -> list[tuple[int, int]]:
    """Apply `search` within groups of equal key, periodicity, charge and spin; pairs are indices into `frames`."""
    groups: dict[tuple[bytes, bytes, str], array[int]] = {}
    for k, frame in enumerate(frames):
        identity = (key(frame), frame.pbc.tobytes(), repr(charge.special(frame)))
        groups.setdefault(identity, array("q")).append(k)
    return [
        (group[i], group[j])
        for group in groups.values()
        if len(group) > 1
        for i, j in search(Picked(frames, group)).tolist()
    ]


def _all_pairs(group: Sequence[Atoms]) -> Array:
    return np.array(np.triu_indices(len(group), 1)).T


def _tree_pairs(vectors: Array, radius: float) -> Array:
    pairs = np.asarray(cKDTree(vectors).query_pairs(radius + 1e-9, output_type="ndarray"))
    return np.sort(pairs.reshape(-1, 2), axis=1)


def _aligned(cells: Array) -> Array:
    """Cells [n, 6] with the first vector along x and the second in the xy plane, A."""
    return np.asarray(np.linalg.cholesky(cells @ cells.transpose(0, 2, 1))[:, *np.tril_indices(3)])


def _alike_cells(cells: Array, pairs: Array, tolerance: float) -> Array:
    """Pairs whose cells agree within `tolerance` (A) once turned alike."""
    aligned = _aligned(cells)
    change = np.abs(aligned[pairs[:, 0]] - aligned[pairs[:, 1]]).max(axis=1, initial=0)
    return np.asarray(pairs[change <= tolerance + 1e-9])


def _fractional(positions: Array, cells: Array) -> Array:
    return np.asarray(np.linalg.solve(cells.transpose(0, 2, 1), positions.transpose(0, 2, 1)).transpose(0, 2, 1))


def _displaced_pairs(group: Sequence[Atoms], tolerance: float) -> Array:
    """Near pairs [n, 2] among frames with the same atoms in the same order.

    The tree holds a random projection of distances between atoms, or of the phases between
    consecutive atoms in a crystal. A projection keeps lengths to some tenths (Johnson and
    Lindenstrauss), and its radius leaves a factor of two.
    """
    pbc = group[0].pbc
    pairs = _tree_pairs(projections(group), 2 * np.sqrt(2 * DIMENSIONS) * tolerance)
    if pbc.any():
        cells = np.concatenate([full_cells(part.cells) for part in _blocks(group)])
        pairs = _alike_cells(cells, pairs, tolerance)
    rms = [np.zeros(0)]
    for block in np.array_split(pairs, 1 + len(pairs) * len(group[0]) // 200_000) if len(pairs) else []:
        indices, places = np.unique(block, return_inverse=True)
        coordinates = Coordinates.of(Picked(group, indices))
        movement, _ = displacements(coordinates.positions, coordinates.cells, pbc, *places.reshape(block.shape).T)
        rms.append(np.sqrt((movement**2).sum(axis=2).mean(axis=1)))
    return np.asarray(pairs[np.concatenate(rms) <= tolerance])


def projections(group: Sequence[Atoms]) -> Array:
    """Vectors [n_frames, some] of frames with the same atoms in the same order; near frames have near ones, A."""
    vectors = []
    for part in _blocks(group):
        if part.pbc.any():
            cells = full_cells(part.cells)
            vectors.append(np.concatenate([_project_crystals(part.positions, cells), _aligned(cells)], axis=1))
        else:
            vectors.append(_project_molecules(part.positions))
    return np.concatenate(vectors)


def _blocks(group: Sequence[Atoms]) -> Iterator[Coordinates]:
    """Coordinates of some `BLOCK_ATOMS` atoms at a time."""
    size = max(1, BLOCK_ATOMS // max(1, len(group[0])))
    for start in range(0, len(group), size):
        yield Coordinates.of(group[start : start + size])


def _project_molecules(positions: Array) -> Array:
    """Random projection [n_frames, DIMENSIONS] of interatomic distances, A."""
    random = np.random.default_rng(0)
    if positions.shape[1] > MANY_ATOMS:  # all pairs would not fit into memory
        first, second = random.integers(0, positions.shape[1], (2, MAX_DISTANCES))
    else:
        first, second = np.triu_indices(positions.shape[1], 1)
        if len(first) > MAX_DISTANCES:
            picks = random.choice(len(first), MAX_DISTANCES, replace=False)
            first, second = first[picks], second[picks]
    projection = random.normal(size=(len(first), DIMENSIONS)) / np.sqrt(max(1, len(first)))
    parts = np.array_split(positions, 1 + len(positions) * len(first) // 2_000_000)
    return np.concatenate([np.linalg.norm(p[:, first] - p[:, second], axis=2) @ projection for p in parts])


def _project_crystals(positions: Array, cells: Array) -> Array:
    """Random projection [n_frames, DIMENSIONS] of the phases between consecutive atoms, as lengths in A."""
    fractional = _fractional(positions, cells)
    angle = 2 * np.pi * (fractional[:, 1:] - fractional[:, :-1])
    size = np.linalg.norm(cells, axis=2)[:, None] / (2 * np.pi)
    features = np.concatenate([np.cos(angle) * size, np.sin(angle) * size], axis=2).reshape(len(positions), -1)
    projection = np.random.default_rng(0).normal(size=(features.shape[1], DIMENSIONS))
    return np.asarray(features @ projection / np.sqrt(max(1, angle.shape[1])))


def _molecules(group: Sequence[Atoms], tolerance: float) -> Array:
    """Near pairs [n, 2] among non-periodic frames of one composition, whatever the order of like atoms."""
    species = np.sort(group[0].numbers)
    keep = np.unique(np.linspace(0, len(species) - 1, DIMENSIONS).astype(int))
    vectors = []
    for part in _blocks(group):
        positions = part.by_species()
        radii = np.linalg.norm(positions - positions.mean(axis=1, keepdims=True), axis=2)
        for z in np.unique(species):
            radii[:, species == z] = np.sort(radii[:, species == z], axis=1)
        vectors.append(radii[:, keep])
    # sorting contracts, so these change by no more than all displacements together
    pairs = _tree_pairs(np.concatenate(vectors), tolerance * np.sqrt(len(species)))
    matches = [_same_molecule(_pair(group, i, j), species, tolerance) for i, j in pairs]
    return np.asarray(pairs[np.array(matches, dtype=bool)])


def _same_molecule(pair: Coordinates, species: Array, tolerance: float) -> bool:
    a, b = pair.by_species()
    return _distance_change(a, b, species) <= tolerance


def _pair(group: Sequence[Atoms], i: int, j: int) -> Coordinates:
    return Coordinates.of([group[int(i)], group[int(j)]])


def _distance_change(a: Array, b: Array, species: Array) -> float:
    """RMS change of the interatomic distances, sorted within each pair of elements."""
    if len(species) == 1:
        return 0.0
    first, second = np.triu_indices(len(species), 1)
    kind = np.minimum(species[first], species[second]) * 200 + np.maximum(species[first], species[second])
    da, db = pdist(a), pdist(b)
    return float(np.sqrt(np.mean((da[np.lexsort((da, kind))] - db[np.lexsort((db, kind))]) ** 2)))


def _crystals(group: Sequence[Atoms], tolerance: float) -> Array:
    """Near pairs [n, 2] among periodic frames of one composition, whatever the order of like atoms."""
    species = np.sort(group[0].numbers)
    _, kinds = np.unique(species, return_inverse=True)
    weight = 1 + 0.4 * kinds
    vectors, all_cells = [], []
    for part in _blocks(group):
        cells = full_cells(part.cells)
        fractional = _fractional(part.by_species(), cells)
        length = np.linalg.norm(np.einsum("kc,nic->nki", WAVES, np.linalg.inv(cells)), axis=2)
        factor = np.empty((len(cells), len(WAVES)))
        for number, wave in enumerate(WAVES):
            factor[:, number] = np.abs((weight * np.exp(2j * np.pi * (fractional @ wave))).sum(axis=1))
        # |S(k)| changes by at most 2 pi |k| |weights| |displacements|: this makes it a length
        factor /= 2 * np.pi * length * np.sqrt((weight**2).sum() * len(species))
        vectors.append(np.concatenate([factor, _aligned(cells)], axis=1))
        all_cells.append(cells)
    pairs = _tree_pairs(np.concatenate(vectors), (4 + np.sqrt(len(WAVES) / len(species))) * tolerance)
    pairs = _alike_cells(np.concatenate(all_cells), pairs, tolerance)
    matches = [_same_crystal(_pair(group, i, j), species, tolerance) for i, j in pairs]
    return np.asarray(pairs[np.array(matches, dtype=bool)])


def _same_crystal(pair: Coordinates, species: Array, tolerance: float) -> bool:
    cells = full_cells(pair.cells)
    a, b = _fractional(pair.by_species(), cells)
    return _is_reordered(a, b, cells[0], species, pair.pbc, tolerance)


def _is_reordered(a: Array, b: Array, cell: Array, species: Array, pbc: Array, tolerance: float) -> bool:
    """Whether fractional coordinates agree after a translation and an exchange of like atoms."""
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
