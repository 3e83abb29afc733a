"""Choosing a few of many: farthest-point sampling, at random, by chemical elements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from ase import Atoms

from retemper.core.errors import RetemperError


def farthest_point(
    points: np.ndarray, k: int, start: int | None = None, parts: np.ndarray | None = None, most: Sequence[int] = ()
) -> np.ndarray:
    """Greedy farthest-point sampling: each pick is the point farthest from all picks before it.

    Exact and deterministic (ties go to the lower index). The greedy choice covers the points with
    a radius of at most twice the best possible (Gonzalez, Theor. Comput. Sci. 38, 293, 1985).

    Distances come from one matrix-vector product a pick, |x - c|^2 = |x|^2 - 2 x.c + |c|^2 on
    centred float32 data, so that two points nearer than some 1e-3 of the data's spread count as equal.

    Parameters
    ----------
    points
        [n, d].
    k
        Number to pick, at most n.
    start
        Index of the first pick; by default the point nearest to the mean of all.
    parts, most
        [n] part of each point, and how many are picked of each part, `k` in all. By default all are of one part.

    Returns
    -------
    np.ndarray
        [k] distinct indices, in order of picking.
    """
    n = len(points)
    _enough(n, k, "points")
    # one contiguous copy: the loop below is bound by reading it
    centred = np.ascontiguousarray(points - np.mean(points, axis=0, dtype=np.float64), dtype=np.float32)
    squares = np.einsum("nd,nd->n", centred, centred)
    parts = np.zeros(n, dtype=int) if parts is None else parts
    left = [k] if not most else list(most)
    if sum(left) != k:
        raise ValueError(f"{left} of the parts are not {k} in all")
    full = np.isin(parts, np.flatnonzero(np.array(left) == 0))
    pick = int(np.argmin(np.where(full, np.inf, squares))) if start is None else int(start)
    picks = np.empty(k, dtype=np.int64)
    nearest = np.where(full, -1.0, np.inf).astype(np.float32)  # squared distance to the picks so far
    distance = np.empty(n, dtype=np.float32)
    for step in range(k):
        picks[step] = pick
        np.dot(centred, centred[pick], out=distance)
        distance *= -2.0
        distance += squares
        distance += squares[pick]
        np.maximum(distance, 0.0, out=distance)
        np.minimum(nearest, distance, out=nearest)
        nearest[pick] = -1.0  # never again, even among duplicates
        left[parts[pick]] -= 1
        if left[parts[pick]] == 0:
            nearest[parts == parts[pick]] = -1.0
        pick = int(np.argmax(nearest))
    return picks


def coverage_radius(points: np.ndarray, picks: Sequence[int] | np.ndarray) -> float:
    """Largest distance of any of `points` [n, d] to its nearest chosen point: smaller covers better."""
    data = np.asarray(points, dtype=np.float64)
    data = data - data.mean(axis=0)
    centres = data[np.asarray(picks)]
    squares = np.einsum("nd,nd->n", centres, centres)
    worst = 0.0
    for block in np.array_split(data, max(1, len(data) // 4096)):
        distance = np.einsum("nd,nd->n", block, block)[:, None] - 2.0 * block @ centres.T + squares[None, :]
        worst = max(worst, float(distance.min(axis=1).max()))
    return float(np.sqrt(worst))


def random(n: int, k: int, seed: int = 0) -> np.ndarray:
    """[k] distinct indices below `n`, in random order."""
    _enough(n, k, "structures")
    return np.random.default_rng(seed).permutation(n)[:k]


def element_match(frames: Sequence[Atoms], target: Iterable[str]) -> np.ndarray:
    """How the elements of each frame match those of `target`: [n] of 2, 1 or 0.

    2: all its elements are among the target's. 1: at least one is. 0: none is.
    """
    target_elements = set(target)
    tiers = []
    for atoms in frames:
        frame_elements = set(atoms.symbols)
        tiers.append(2 if frame_elements <= target_elements else 1 if frame_elements & target_elements else 0)
    return np.array(tiers, dtype=int)


def _enough(n: int, k: int, noun: str) -> None:
    if k > n:
        raise RetemperError(f"Cannot choose {k} of {n} {noun}.", fix="ask for fewer, or give a larger pool")
