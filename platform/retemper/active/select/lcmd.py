"""Largest cluster maximum distance: each pick is the farthest candidate of the cluster with the most spread.

Clusters are the candidates nearest to the same labelled or picked structure, and their spread is the sum of squared
distances. Unlike farthest-point sampling it does not go for single outliers.

D. Holzmüller, V. Zaverkin, J. Kästner, I. Steinwart, J. Mach. Learn. Res. 24, 164 (2023), here with distances between
mean descriptors.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from retemper.active.pool import Pool
from retemper.config.settings import Section

EMPTY = 1e-12  # clusters of twins alone still count as clusters


class Options(Section):
    pass


def choose(pool: Pool, number: int, options: Options, seed: int) -> list[int]:
    """Indices in order of picking."""
    points = pool.descriptors
    centres = pool.labelled if len(pool.labelled) else points.mean(axis=0, keepdims=True)
    distances = cdist(points, centres)
    cluster, distance = distances.argmin(axis=1), distances.min(axis=1)
    free = np.ones(len(points), dtype=bool)
    picks: list[int] = []
    for _ in range(min(number, len(points))):
        spread = np.bincount(cluster[free], weights=distance[free] ** 2 + EMPTY)
        members = free & (cluster == spread.argmax())
        k = int(np.where(members, distance, -np.inf).argmax())
        free[k] = False
        pick_distance = np.linalg.norm(points - points[k], axis=1)
        nearer = pick_distance < distance
        cluster[nearer], distance[nearer] = len(centres) + len(picks), pick_distance[nearer]
        picks.append(k)
    return picks
