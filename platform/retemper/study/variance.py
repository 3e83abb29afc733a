"""How much of the variance of a response each axis accounts for, in designs that are not quite balanced.

Main effects by least squares; the sum of squares of an axis is what the fit loses without it (type II), and its share
is epsilon squared, (SS - df * residual mean square) / SS of all, whose expectation is zero where there is no effect
(Kelley, Proc. Natl. Acad. Sci. 21, 554, 1935; against eta and omega squared: Okada, Behaviormetrika 40, 129, 2013).
Intervals by leaving out each system in turn, with Student's t (Tukey, Ann. Math. Stat. 29, 614, 1958). Systems are what
is independent: seeds of the same systems say nothing of others, so fewer than three systems give no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from retemper.evaluation.statistics import Estimate, Interval, two_sided

if TYPE_CHECKING:
    import pandas as pd

RESIDUAL = 5  # degrees of freedom that the residual must have
SYSTEMS = 3  # at least


def parts(rows: pd.DataFrame, axes: Sequence[str], response: np.ndarray) -> dict[str, float] | None:
    """Share of the variance of `response` [n] by axis; "residual" and axes of one level are left out.

    Returns
    -------
    dict or None
        By axis, about 0 (below it by chance, too) to 1; `None` where the runs are too few to tell.
    """
    varied = [axis for axis in axes if rows[axis].nunique() > 1]
    blocks = {axis: _dummies(rows[axis]) for axis in varied}
    constant = np.ones((len(rows), 1))
    total = float(((response - response.mean()) ** 2).sum())
    design = np.hstack([constant, *blocks.values()])
    rank = int(np.linalg.matrix_rank(design))
    freedom = len(rows) - rank
    if freedom < RESIDUAL or total == 0:
        return None
    residual = _residual(design, response)
    shares = {}
    for axis in varied:
        reduced = np.hstack([constant, *(block for name, block in blocks.items() if name != axis)])
        degrees = rank - int(np.linalg.matrix_rank(reduced))
        if degrees == 0:
            return None  # the axis cannot be told from the others
        shares[axis] = (_residual(reduced, response) - residual - degrees * residual / freedom) / total
    return shares


def _dummies(column: pd.Series) -> np.ndarray:
    levels = sorted(set(column))
    return np.stack([(column == level).to_numpy(float) for level in levels[1:]], axis=1)


def _residual(design: np.ndarray, response: np.ndarray) -> float:
    fitted = design @ np.linalg.lstsq(design, response, rcond=None)[0]
    return float(((response - fitted) ** 2).sum())


def over_systems(
    rows: pd.DataFrame, statistic: Callable[[pd.DataFrame], float | None], confidence: float
) -> Interval | None:
    """A statistic of the rows with its interval over systems; `None` where it cannot be had."""
    value, systems = statistic(rows), sorted(set(rows["system"]))
    if value is None or len(systems) < SYSTEMS:
        return None
    jackknife = [statistic(rows[rows["system"] != system]) for system in systems]
    if any(replicate is None for replicate in jackknife):
        return None
    n = len(systems)
    pseudo = n * value - (n - 1) * np.array(jackknife, dtype=float)
    error = float(pseudo.std(ddof=1) / np.sqrt(n))
    return Estimate(float(pseudo.mean()), error, n - 1, n).interval(two_sided(confidence))
