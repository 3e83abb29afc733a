"""What is wrong with a trajectory: too hot, atoms too close, volume gone, bonds lost."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from retemper.data.geometry import neighbours
from retemper.simulation import dynamics

HOT = 3.0  # times the thermostat's temperature, plus MARGIN for few atoms
MARGIN = 300.0  # K
CLOSE = 0.5  # times the sum of covalent radii
BOND, BROKEN = 1.25, 2.0  # the same, between non-metals: a bond of the first frame, and when it is lost
LOST = 3  # stored frames in a row that a bond must be gone
NON_METALS = frozenset([1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 52, 53])
VOLUME = (0.5, 2.0)  # of the first volume


def first_failure(run: dynamics.Trajectory, bonds: bool = True) -> tuple[int, str]:
    """Index of the first stored frame that is wrong and why; the last index and "" for a sound trajectory.

    Parameters
    ----------
    run
        From `dynamics.trajectory`.
    bonds
        Whether a lost bond is a failure; at high temperature it is chemistry.
    """
    last = len(run.time) - 1
    hot = dynamics.temperatures(run)
    limit = HOT * run.target + MARGIN
    first = dynamics.frame(run, 0)
    pairs, _ = covalent_bonds(first)
    volume = first.get_volume() if run.pbc.all() else 0.0
    frames_broken = np.zeros(len(pairs), dtype=int)
    for k in range(last + 1):
        if not np.isfinite(run.positions[k]).all() or not np.isfinite(run.potential[k]):
            return k, run.stopped or "not finite"
        if hot[k] > limit[k]:
            return k, f"temperature {hot[k]:.0f} K with a thermostat at {run.target[k]:.0f} K"
        atoms = dynamics.frame(run, k)
        _, _, distance, _ = contacts = neighbours(atoms, CLOSE)
        if len(distance):
            pair = "-".join(atoms.symbols[[contacts[0][0], contacts[1][0]]])
            return k, f"atoms too close: {pair} {distance.min():.2f} A"
        if volume and not VOLUME[0] < atoms.get_volume() / volume < VOLUME[1]:
            return k, f"volume {atoms.get_volume() / volume:.2f} times the first"
        if bonds and len(pairs):
            length = _lengths(atoms, pairs)
            reach = BROKEN * covalent_radii[atoms.numbers[pairs]].sum(axis=1)
            frames_broken = np.where(length > reach, frames_broken + 1, 0)
            if (frames_broken >= LOST).any():
                i, j = pairs[int(np.argmax(frames_broken))]
                return k, f"bond lost: {atoms.symbols[i]}-{atoms.symbols[j]} {length[np.argmax(frames_broken)]:.2f} A"
    return last, run.stopped


def covalent_bonds(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Bonds between non-metals: index pairs [n, 2] (i < j) and lengths [n], A."""
    first, second, distance, _ = neighbours(atoms, BOND)
    covalent = np.isin(atoms.numbers, list(NON_METALS))
    use = (first < second) & covalent[first] & covalent[second]
    return np.stack([first[use], second[use]], axis=1), distance[use]


def _lengths(atoms: Atoms, pairs: np.ndarray) -> np.ndarray:
    """[n] A, to the nearest image."""
    vectors = atoms.positions[pairs[:, 1]] - atoms.positions[pairs[:, 0]]
    if atoms.pbc.any():
        from ase.geometry import find_mic

        return np.asarray(find_mic(vectors, atoms.cell, atoms.pbc)[1])
    return np.asarray(np.linalg.norm(vectors, axis=1))
