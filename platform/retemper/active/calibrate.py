"""What an uncertainty is worth: compared with the errors of forces on structures that nobody trained on.

Per atom: the error is that of the force's three components, the uncertainty u stands for the standard
deviation of one of them, times a factor alpha that makes the errors likeliest (Gaussian, zero mean):
alpha^2 = mean(error^2 / u^2). Uncertainties far below the others count as a share of the median: a single
one that is nearly 0 would decide alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retemper.evaluation.statistics import Estimate, two_sided
from retemper.records.round import Calibration

TOP = 0.1  # share of the atoms with the largest errors that the uncertainty is to find
CONFIDENCE = 0.95  # of the interval of the rank correlation
FEWEST = 3  # groups
LARGEST = 1e30  # stands for an infinite uncertainty
FLOOR = 1e-2  # of the median uncertainty: smaller ones are not told apart
LEVELS = np.linspace(0.01, 0.99, 99)  # of confidence


@dataclass(frozen=True)
class Scale:
    """From uncertainties to expected errors."""

    alpha: float  # eV/A a unit of the uncertainty
    floor: float  # uncertainty that smaller ones count as

    def expected(self, uncertainty: np.ndarray) -> np.ndarray:
        """Standard deviation of a force component, eV/A, of the shape of `uncertainty`."""
        return np.asarray(self.alpha * np.maximum(positive(uncertainty), self.floor))

    @classmethod
    def of(cls, calibration: Calibration) -> Scale:
        """By which a calibration expected the errors."""
        return cls(calibration.alpha, calibration.floor)


def calibrate(
    uncertainty: Sequence[np.ndarray],
    error: Sequence[np.ndarray],
    groups: Sequence[str],
    scale: Scale | None = None,
) -> Calibration:
    """Compare.

    Parameters
    ----------
    uncertainty
        For each frame [n_atoms], above zero.
    error
        For each frame [n_atoms, 3], eV/A: predicted minus reference forces.
    groups
        Of each frame: those of one group are not independent.
    scale
        Found on other frames, to be judged on these; default: the one that makes these errors likeliest.

    References
    ----------
    Scaling by likelihood: F. Bigi, S. Chong, M. Ceriotti, F. Grasselli, arXiv:2403.02251 (2024), eq. 24;
    miscalibration area: K. Tran et al., Mach. Learn.: Sci. Technol. 1, 025006 (2020).
    """
    u = np.concatenate([positive(part) for part in uncertainty])
    e = np.concatenate(list(error))
    size = np.linalg.norm(e, axis=1)
    if scale is None:
        finite = u[u < LARGEST]
        floor = FLOOR * float(np.median(finite)) if finite.size else 0.0
        scale = Scale(float(np.sqrt(np.mean((size / np.maximum(u, floor)) ** 2) / 3)), floor)
    low, high = _interval(u, size, np.repeat(np.asarray(groups, dtype=str), [len(part) for part in uncertainty]))
    return Calibration(
        frames=len(uncertainty),
        groups=len(set(groups)),
        atoms=len(u),
        alpha=scale.alpha,
        floor=scale.floor,
        spearman=spearman(u, size),
        spearman_low=low,
        spearman_high=high,
        auroc=auroc(u, size),
        miscalibration=miscalibration(e / scale.expected(u)[:, None]) if scale.alpha > 0 else 0.5,
        rmse=float(np.sqrt((e**2).mean())),
        informative=low > 0,
    )


def positive(uncertainty: np.ndarray) -> np.ndarray:
    """[n] without zeros and infinities, which no factor could scale."""
    finite = np.where(np.isfinite(uncertainty), uncertainty, LARGEST)
    return np.asarray(np.clip(finite, 1e-12, LARGEST))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; 0 where one of them is constant."""
    from scipy.stats import spearmanr

    return 0.0 if min(np.ptp(a), np.ptp(b)) == 0 else float(spearmanr(a, b).statistic)


def auroc(uncertainty: np.ndarray, error: np.ndarray, top: float = TOP) -> float:
    """Chance that one of the `top` largest errors has a larger uncertainty than one of the others (Mann-Whitney)."""
    from sklearn.metrics import roc_auc_score

    worst = error >= np.quantile(error, 1 - top)
    return 0.5 if worst.all() else float(roc_auc_score(worst, uncertainty))


def coverage(z: np.ndarray) -> np.ndarray:
    """Share of the standardised errors `z` within the central interval of each of `LEVELS` of a normal distribution."""
    from scipy.stats import norm

    reach = norm.ppf((1 + LEVELS) / 2)
    return np.asarray(np.searchsorted(np.sort(np.abs(z).ravel()), reach, side="right") / z.size)


def miscalibration(z: np.ndarray) -> float:
    """Mean distance of observed from expected confidence."""
    return float(np.abs(coverage(z) - LEVELS).mean())


def _interval(uncertainty: np.ndarray, error: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Of the rank correlation of atoms [n]; with fewer than `FEWEST` groups nothing is known.

    Leaves out each group in turn, on Fisher's scale (artanh), where the error does not depend on the correlation.
    """
    names, atoms = np.unique(groups, return_counts=True)
    if len(names) < FEWEST:
        return -1.0, 1.0

    def correlation(subset: np.ndarray) -> float:
        return float(np.arctanh(np.clip(spearman(uncertainty[subset], error[subset]), -0.999999, 0.999999)))

    value = correlation(np.ones(len(groups), dtype=bool))
    jackknife = np.array([correlation(groups != name) for name in names])
    n = len(names)
    deviation = float(np.sqrt((n - 1) / n * ((jackknife - value) ** 2).sum()))
    freedom = max(1.0, float(atoms.sum() ** 2 / (atoms**2).sum()) - 1)  # groups counted by their atoms
    interval = Estimate(value, deviation, freedom, n).interval(two_sided(CONFIDENCE), np.tanh)
    return float(interval.low), float(interval.high)


def plot(uncertainty: Sequence[np.ndarray], error: Sequence[np.ndarray], calibration: Calibration, path: Path) -> None:
    """Error against expected error with a running root mean square, and observed against expected confidence."""
    from retemper.active import figures

    u = Scale.of(calibration).expected(np.concatenate(list(uncertainty)))
    e = np.concatenate(list(error))
    figures.calibration_png(
        u, np.linalg.norm(e, axis=1) / np.sqrt(3), LEVELS, coverage(e / u[:, None]), calibration.sentence(), path
    )
