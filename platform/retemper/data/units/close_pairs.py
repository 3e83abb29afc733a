"""Pairs of frames close to each other: energy differences, and what forces and stress make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from retemper.data.frames import ENERGY, FORCES, STRESS
from retemper.data.geometry import by_atoms, displacements
from retemper.data.units.force_laws import badger_work

Array = np.ndarray
CLOSE = 0.3  # A, RMS movement within which the trapezoidal rule holds
STRAINED = 0.02  # strain up to which cells count as equal for forces


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of frames near each other, all arrays [n_pairs].

    Attributes
    ----------
    rms
        RMS movement, A.
    strain
        Largest component of the strain between the cells.
    energy
        E_b - E_a, eV.
    force_work
        Sum over atoms of (F_a + F_b)/2 . dx, eV.
    stress_work
        V s:e of the mean stress along the strain, eV; NaN without stress.
    restoring
        Sum of -(F_b - F_a) . dx, eV: the curvature of the energy along the movement.
    badger
        The same from Badger's rule for every bond, eV; NaN for pairs too far apart.
    atoms
        Number of atoms.
    """

    rms: Array
    strain: Array
    energy: Array
    force_work: Array
    stress_work: Array
    restoring: Array
    badger: Array
    atoms: Array


def close_pairs(frames: Sequence[Atoms], nearest: int = 3, per_group: int = 120, max_frames: int = 1500) -> ClosePairs:
    """For each frame the pairs with its `nearest` others that have the same atoms.

    At most `per_group` frames with the same atoms take part and about `max_frames` in all,
    by a fixed random choice of groups.
    """
    groups = [group for group in by_atoms(frames) if len(group) > 1]
    rows = []
    total = 0
    for k in np.random.default_rng(0).permutation(len(groups)):
        group = groups[k][:per_group]
        rows.append(_pairs_of([frames[i] for i in group], nearest))
        total += len(group)
        if total >= max_frames:
            break
    return ClosePairs(*(np.concatenate(rows, axis=1) if rows else np.zeros((8, 0))))


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
    partners = np.argsort(table, axis=1)[:, : min(nearest, len(group) - 1)]
    low, high = np.sort(np.stack([np.repeat(np.arange(len(group)), partners.shape[1]), partners.ravel()]), axis=0)
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
    rms = table[first, second]
    restoring = -((forces[second] @ rotation - forces[first]) * movement).sum(axis=(1, 2))
    badger = np.full(len(first), np.nan)
    for k in np.flatnonzero((rms < CLOSE) & (rms > 1e-3) & (strain < STRAINED))[:40]:
        badger[k] = badger_work(group[first[k]], movement[k])
    change, atoms = energies[second] - energies[first], np.full(len(first), len(group[0]))
    return np.stack([rms, strain, change, force_work, stress_work, restoring, badger, atoms])
