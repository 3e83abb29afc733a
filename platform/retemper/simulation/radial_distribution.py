"""Partial radial distribution functions of many frames, and the earth mover's distance between them.

One compiled kernel takes any cell and periodicity, and any reach: distances to all images are
counted. Definition as in LAMMPS and ASE: g_ab(r) = V n_ab(r) / (N_a N_b 4 pi r^2 dr), shell volumes
exact (M. P. Allen and D. J. Tildesley, Computer Simulation of Liquids, 2nd ed., section 8.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache
def _kernel() -> Any:
    import numba

    @numba.njit(cache=True, fastmath={"contract", "arcp", "nsz"})
    def count(positions, cells, inverses, images, periodic, first, second, same, reach, bins):  # type: ignore[no-untyped-def]
        """Histograms [frames, bins] of distances between atoms `first` and `second`, each unordered pair once."""
        counts = np.zeros((positions.shape[0], bins), dtype=np.int64)
        limit = reach * reach
        scale = bins / reach
        for k in range(positions.shape[0]):
            c, w = cells[k], inverses[k]
            na, nb, nc = images[k, 0], images[k, 1], images[k, 2]
            single = na == 0 and nb == 0 and nc == 0
            for p in range(first.size):
                i = first[p]
                for q in range(p if same else 0, second.size):
                    j = second[q]
                    x = positions[k, j, 0] - positions[k, i, 0]
                    y = positions[k, j, 1] - positions[k, i, 1]
                    z = positions[k, j, 2] - positions[k, i, 2]
                    if periodic:
                        a = np.rint(x * w[0, 0] + y * w[1, 0] + z * w[2, 0])
                        b = np.rint(x * w[0, 1] + y * w[1, 1] + z * w[2, 1])
                        d = np.rint(x * w[0, 2] + y * w[1, 2] + z * w[2, 2])
                        x -= a * c[0, 0] + b * c[1, 0] + d * c[2, 0]
                        y -= a * c[0, 1] + b * c[1, 1] + d * c[2, 1]
                        z -= a * c[0, 2] + b * c[1, 2] + d * c[2, 2]
                    if single:
                        s = x * x + y * y + z * z
                        if s < limit and i != j:
                            counts[k, int(np.sqrt(s) * scale)] += 1
                        continue
                    for l in range(-na, na + 1):  # noqa: E741
                        for m in range(-nb, nb + 1):
                            for n in range(-nc, nc + 1):
                                u = x + l * c[0, 0] + m * c[1, 0] + n * c[2, 0]
                                v = y + l * c[0, 1] + m * c[1, 1] + n * c[2, 1]
                                t = z + l * c[0, 2] + m * c[1, 2] + n * c[2, 2]
                                s = u * u + v * v + t * t
                                if s < limit and (i != j or (s > 0 and _forward(l, m, n))):
                                    counts[k, int(np.sqrt(s) * scale)] += 1
        return counts

    @numba.njit(inline="always")
    def _forward(l, m, n):  # type: ignore[no-untyped-def]  # noqa: E741
        """Half of the images of an atom itself."""
        return l > 0 or (l == 0 and (m > 0 or (m == 0 and n > 0)))

    return count


def histograms(
    positions: np.ndarray,
    cells: np.ndarray,
    pbc: Sequence[bool],
    first: np.ndarray,
    second: np.ndarray,
    reach: float,
    bins: int,
) -> np.ndarray:
    """Numbers of distances below `reach` between two sets of atoms, every unordered pair once, images included.

    Parameters
    ----------
    positions
        [frames, n_atoms, 3] A.
    cells
        [frames, 3, 3] A; ignored along directions that are not periodic.
    pbc
        [3].
    first, second
        Indices of the two sets: the same, or disjoint.
    reach, bins
        A, and number of bins of equal width below it.

    Returns
    -------
    ndarray
        [frames, bins] int.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    periodic = np.asarray(pbc, dtype=bool)
    cells = np.array(cells, dtype=np.float64)
    inverses = np.zeros_like(cells)
    images = np.zeros((len(cells), 3), dtype=np.int64)
    if periodic.any():
        if not periodic.all():
            from retemper.data.geometry import full_cells

            cells[:, ~periodic] = 0.0
            cells = full_cells(cells)
        inverses = np.ascontiguousarray(np.linalg.inv(cells))
        heights = 1 / np.linalg.norm(inverses, axis=1)
        # after rounding, fractional components are within 1/2: further images are needed beyond half a height
        images = np.floor(reach / heights + 0.5).astype(np.int64)
        images[:, ~periodic] = 0
        inverses[:, :, ~periodic] = 0.0
    same = bool(np.array_equal(first, second))
    return np.asarray(
        _kernel()(
            positions,
            np.ascontiguousarray(cells),
            np.ascontiguousarray(inverses),
            images,
            bool(periodic.any()),
            np.asarray(first, dtype=np.int64),
            np.asarray(second, dtype=np.int64),
            same,
            float(reach),
            int(bins),
        )
    )


def distribution(
    counts: np.ndarray, volumes: np.ndarray, n_first: int, n_second: int, same: bool, reach: float
) -> np.ndarray:
    """g(r) [bins], the mean over frames, from histograms [frames, bins] and volumes [frames] (A^3)."""
    edges = np.linspace(0.0, reach, counts.shape[1] + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    pairs = 2 * counts if same else counts
    return np.asarray((pairs * volumes[:, None] / (n_first * n_second * shells)).mean(axis=0))


def middles(reach: float, bins: int) -> np.ndarray:
    """[bins] centres of the bins, A."""
    return np.asarray((np.arange(bins) + 0.5) * reach / bins)


def earth_movers(first: np.ndarray, second: np.ndarray, r: np.ndarray) -> float:
    """Earth mover's distance (A) between two distributions on the grid `r`, each normalised to one.

    Y. Rubner et al., Int. J. Comput. Vis. 40, 99 (2000); in one dimension the Wasserstein distance.
    """
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(r, r, first, second))


def histogram_distance(first: np.ndarray, second: np.ndarray, r: np.ndarray) -> float:
    """Earth mover's distance (A) between the radial distributions of numbers of distances a frame.

    What both have within reach is compared as distributions (numbers over r^2, normalised). What one has more of was
    nearer than the end of the grid here and is farther there: it is moved to the end, the outermost first, which is
    the least transport. So a pair that one side never has costs the transport of all its distances.

    Parameters
    ----------
    first, second
        [bins] mean numbers of distances a frame; not both zero.
    r
        [bins] centres of the bins, A.
    """
    more, fewer = (first, second) if first.sum() > second.sum() else (second, first)
    total = float(more.sum())
    inner = np.diff(np.minimum(np.cumsum(more), fewer.sum()), prepend=0.0)
    end = float(r[-1] + r[0])
    transport = float(((more - inner) * (end - r)).sum()) / total
    share = float(inner.sum()) / total
    return transport + (share * earth_movers(inner / r**2, fewer / r**2, r) if share else 0.0)
