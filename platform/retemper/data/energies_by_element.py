"""Energies as a sum of one energy an element: what is left tells outliers and mixed levels of theory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

Array = np.ndarray
SPECIES = 120  # above every atomic number


def fractions(frames: Sequence[Atoms]) -> tuple[Array, Array]:
    """Share of each element in each frame [n_frames, n_elements], and the atomic numbers [n_elements].

    Each composition is kept once, so that a large set needs one number a frame until the end.
    """
    compositions: dict[bytes, int] = {}
    index = np.empty(len(frames), dtype=np.int64)
    for k, frame in enumerate(frames):
        index[k] = compositions.setdefault(np.bincount(frame.numbers, minlength=SPECIES).tobytes(), len(compositions))
    counts = np.array(
        [np.frombuffer(composition, dtype=np.int64) for composition in compositions], dtype=float
    ).reshape(-1, SPECIES)
    species = np.flatnonzero(counts.any(axis=0))
    shares = counts[:, species] / counts[:, species].sum(axis=1, keepdims=True)
    return shares[index], species


def least_absolute(design: Array, values: Array, rounds: int = 20) -> Array:
    """x [k] that minimises the sum of | design x - values |, of minimum norm.

    Iteratively reweighted least squares: Schlossmacher, J. Am. Stat. Assoc. 68, 857 (1973).
    """
    weights: Array = np.ones(len(values))
    fit: Array = np.zeros(design.shape[1])
    scale = max(float(np.median(np.abs(values - np.median(values)))), 1e-9)
    for _ in range(rounds):
        fit = np.linalg.lstsq(design * weights[:, None], values * weights, rcond=1e-10)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(values - design @ fit), 1e-6 * scale))
        weights /= weights.max()
    return fit


def robust_fit(frames: Sequence[Atoms], per_atom: Array) -> tuple[Array, int]:
    """Residuals of energies per atom from a sum of one energy an element, by least absolute deviations.

    On distinct compositions, of minimum norm where compositions are linearly dependent: the
    residuals are unique all the same.

    Parameters
    ----------
    frames
        Structures.
    per_atom
        Energies per atom [n_frames], eV.

    Returns
    -------
    residuals
        [n_frames], eV/atom.
    rank
        Independent compositions.
    """
    shares, _ = fractions(frames)
    centred = per_atom - float(np.median(per_atom))
    return centred - shares @ least_absolute(shares, centred), int(np.linalg.matrix_rank(shares, tol=1e-8))
