"""How much of the variance of a response each axis accounts for, in designs that are not quite balanced.

Main effects by least squares; the sum of squares of an axis is what the fit loses without it (type II), and its part
of the variance is (SS - df * residual mean square) / n, without bias where there is no effect (omega squared: Hays,
Statistics for Psychologists, 1963, chapter 12). Intervals by the jackknife over systems, or over seeds where there
are fewer than three systems, with Student's t (Tukey, Ann. Math. Stat. 29, 614, 1958): with five systems a
percentile bootstrap over them would be too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

RESIDUAL = 5  # degrees of freedom that the residual must have
UNITS = 3  # of the jackknife, at least


def parts(rows: pd.DataFrame, axes: Sequence[str], response: np.ndarray) -> dict[str, float] | None:
    """Share of the variance of `response` [n] by axis; "residual" and axes of one level are left out.

    Returns
    -------
    dict or None
        By axis, about 0 (below it by chance, too) to 1; `None` where the runs are too few to tell.
    """
    varied = [axis for axis in axes if rows[axis].nunique() > 1]
    blocks = {axis: _dummies(rows[axis]) for axis in varied}
    one = np.ones((len(rows), 1))
    total = float(((response - response.mean()) ** 2).sum())
    whole = np.hstack([one, *blocks.values()])
    rank = int(np.linalg.matrix_rank(whole))
    freedom = len(rows) - rank
    if freedom < RESIDUAL or total == 0:
        return None
    left = _residual(whole, response)
    found = {}
    for axis in varied:
        rest = np.hstack([one, *(block for name, block in blocks.items() if name != axis)])
        lost = rank - int(np.linalg.matrix_rank(rest))
        if lost == 0:
            return None  # the axis cannot be told from the others
        found[axis] = (_residual(rest, response) - left - lost * left / freedom) / total
    return found


def _dummies(column: pd.Series) -> np.ndarray:
    levels = sorted(set(column))
    return np.stack([(column == level).to_numpy(float) for level in levels[1:]], axis=1)


def _residual(design: np.ndarray, response: np.ndarray) -> float:
    fitted = design @ np.linalg.lstsq(design, response, rcond=None)[0]
    return float(((response - fitted) ** 2).sum())


def jackknife(
    rows: pd.DataFrame, statistic: Callable[[pd.DataFrame], float | None], confidence: float
) -> tuple[float, float, float, str] | None:
    """A statistic of the rows with its interval, and what the interval is over; `None` where it cannot be had."""
    from scipy.stats import t

    value = statistic(rows)
    if value is None:
        return None
    for unit in ("system", "seed"):
        levels = sorted(set(rows[unit]))
        if len(levels) < UNITS:
            continue
        without = [statistic(rows[rows[unit] != level]) for level in levels]
        if any(one is None for one in without):
            continue
        n = len(levels)
        pseudo = n * value - (n - 1) * np.array(without, dtype=float)
        mean = float(pseudo.mean())
        reach = float(t.ppf(0.5 + confidence / 2, n - 1) * pseudo.std(ddof=1) / np.sqrt(n))
        return mean, mean - reach, mean + reach, f"{unit}s"
    return None
