"""What selectors choose from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pool:
    """Candidates that may be labelled, after removal of duplicates."""

    uncertainty: np.ndarray  # [n] eV/A: largest expected error of a force component in the structure
    descriptors: np.ndarray  # [n, d]: mean over atoms
    labelled: np.ndarray  # [m, d]: of what is labelled


def nearest(points: np.ndarray, references: np.ndarray) -> np.ndarray:
    """[n] distance of each point to the nearest of `references`; infinite without any."""
    if not len(references):
        return np.full(len(points), np.inf)
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(points, references).min(axis=1))


def greedy(pool: Pool, number: int, weight: np.ndarray) -> list[int]:
    """`number` times the candidate with the largest weight times distance to all that is labelled or chosen."""
    distance = nearest(pool.descriptors, pool.labelled)
    if not np.isfinite(distance).all():
        distance = np.linalg.norm(pool.descriptors - pool.descriptors.mean(axis=0), axis=1)
    free = np.ones(len(weight), dtype=bool)
    picks = []
    for _ in range(min(number, len(weight))):
        k = int(np.where(free, weight * distance, -np.inf).argmax())
        picks.append(k)
        free[k] = False
        distance = np.minimum(distance, np.linalg.norm(pool.descriptors - pool.descriptors[k], axis=1))
    return picks
