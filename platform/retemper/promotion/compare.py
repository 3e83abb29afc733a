"""Whether one model is better than another: paired bootstrap over frames, spread over seeds, differences of intervals.

Two models are compared on the same frames, so that what makes a frame hard for both cancels.
For an error E (RMSE or MAE) the ratio r = E_a / E_b is resampled on the log scale: whole
frames are drawn with replacement, the same ones for both models (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, ch. 6 and 8). With few frames a percentile interval is too
narrow; its level is widened as Hesterberg proposes (The American Statistician 69, 371, 2015,
section 4.1: expanded percentiles).

Over seeds, log r of the means over seeds is compared, and Student's t with the standard
deviation over seeds of log E, pooled over the strategies (Montgomery, Design and Analysis of
Experiments, section 3.3), is added to every bootstrap sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from retemper.promotion.measures import Errors

QUANTITIES = ("energy_rmse", "energy_mae", "force_rmse")
BOOTSTRAP_SEED = 0
CHUNK = 4_000_000  # frames drawn that are held in memory at a time
TAIL = 20  # bootstrap samples beyond the quantile that is asked for, at least


@dataclass(frozen=True)
class Interval:
    """An estimate with its one-sided bounds: `low` and `high` each hold with the confidence that was asked for."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """Standard deviation over seeds of the logarithm of an error, and its degrees of freedom."""

    deviation: float
    freedom: int


def squares(errors: Errors, quantity: str) -> np.ndarray:
    """[n_frames] what is summed over frames; the sums' ratio, to the power of `power`, is the ratio of the errors."""
    if quantity == "force_rmse":
        return errors.force_sq
    return np.abs(errors.energy) if quantity == "energy_mae" else errors.energy**2


def power(quantity: str) -> float:
    """1 for a mean absolute error, 1/2 for a root mean square."""
    return 1.0 if quantity.endswith("_mae") else 0.5


def log_ratios(
    ours: Sequence[Errors], theirs: Sequence[Errors], quantity: str, resamples: int
) -> tuple[float, np.ndarray]:
    """log(E_ours / E_theirs), geometric means over the models of each side, and its bootstrap samples [resamples].

    All models are measured on the same frames in the same order. A model without any error
    on the frames drawn makes a sample infinite, which is what it should be.
    """
    columns = np.stack([squares(errors, quantity) for errors in (*ours, *theirs)], axis=1)
    n = len(columns)
    rows = max(1, CHUNK // n)
    sums = [columns.sum(axis=0)[None]]
    sums += [draws(n, min(rows, resamples - k), k) @ columns for k in range(0, resamples, rows)]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = power(quantity) * np.log(np.vstack(sums))
        values = logs[:, : len(ours)].mean(axis=1) - logs[:, len(ours) :].mean(axis=1)
    return float(values[0]), values[1:]


@lru_cache(maxsize=4)
def draws(n: int, resamples: int, start: int) -> np.ndarray:
    """[resamples, n] how often each of n frames is drawn in bootstrap samples `start` and following."""
    random = np.random.default_rng([BOOTSTRAP_SEED, start])
    return random.multinomial(n, np.full(n, 1.0 / n), size=resamples).astype(float)


def enough(resamples: int, confidence: float) -> int:
    """`resamples`, or as many as leave `TAIL` samples beyond the quantile."""
    return max(resamples, math.ceil(TAIL / (1.0 - confidence)))


def over_frames(ours: Errors, theirs: Errors, quantity: str, confidence: float, resamples: int) -> Interval:
    """E_ours / E_theirs of two models, and how far it would move with other frames."""
    resamples = enough(resamples, confidence)
    value, samples = log_ratios([ours], [theirs], quantity, resamples)
    return _interval(value, samples, confidence, len(ours.energy))


def over_seeds(
    ours: Sequence[Errors],
    theirs: Sequence[Errors],
    quantity: str,
    confidence: float,
    resamples: int,
    spread: Spread,
    *,
    fixed: bool = False,
) -> Interval:
    """E_ours / E_theirs of two recipes, and how far it would move with other frames and other seeds.

    Parameters
    ----------
    ours, theirs
        One entry a seed.
    spread
        Of log E over seeds.
    fixed
        `theirs` is one given model that no other seed could have made (the foundation).
    """
    resamples = enough(resamples, confidence)
    value, samples = log_ratios(ours, theirs, quantity, resamples)
    width = spread.deviation * math.sqrt(1.0 / len(ours) + (0.0 if fixed else 1.0 / len(theirs)))
    noise = np.random.default_rng(BOOTSTRAP_SEED + 1).standard_t(spread.freedom, size=resamples)
    return _interval(value, samples + width * noise, confidence, len(ours[0].energy))


def _interval(value: float, samples: np.ndarray, confidence: float, n: int) -> Interval:
    """exp of `value` and of the samples' quantiles; NaN samples (0 / 0) make the bounds infinitely wide."""
    level = expanded(confidence, n)
    low, high = (
        np.quantile(np.where(np.isnan(samples), -np.inf, samples), 1.0 - level, method="lower"),
        np.quantile(np.where(np.isnan(samples), np.inf, samples), level, method="higher"),
    )
    with np.errstate(over="ignore"):
        return Interval(float(np.exp(value)), float(np.exp(low)), float(np.exp(high)))


def expanded(confidence: float, n: int) -> float:
    """Level of the percentile that gives `confidence` with `n` frames; 1 with one frame."""
    from scipy import stats

    if n < 2:
        return 1.0
    return float(stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(confidence, n - 1)))


def pooled_spread(recipes: Mapping[str, Sequence[Errors]], quantity: str) -> Spread | None:
    """Standard deviation over seeds of log E, pooled over recipes; `None` when all have one seed."""
    total, freedom = 0.0, 0
    for seeds in recipes.values():
        if len(seeds) < 2:
            continue
        logs = [power(quantity) * math.log(max(float(squares(e, quantity).sum()), 1e-300)) for e in seeds]
        total += float(np.var(logs, ddof=1)) * (len(seeds) - 1)
        freedom += len(seeds) - 1
    return Spread(math.sqrt(total / freedom), freedom) if freedom else None


def difference(
    ours: tuple[float, float, float],
    theirs: tuple[float, float, float],
    confidence: float,
    levels: tuple[float, float] = (0.95, 0.95),
) -> Interval:
    """ours - theirs of two independent estimates (value, low, high with two-sided intervals of these levels).

    Bounds by the method of variance estimates recovery, which for shares with Wilson intervals
    is Newcombe's method 10 (Zou and Donner, Statistics in Medicine 27, 1693, 2008; Newcombe,
    Statistics in Medicine 17, 873, 1998). The half widths are scaled to `confidence` as a
    normal distribution's.
    """
    from scipy import stats

    wide, other = (float(stats.norm.ppf(confidence) / stats.norm.ppf(0.5 + level / 2)) for level in levels)
    (a, a_low, a_high), (b, b_low, b_high) = ours, theirs
    return Interval(
        a - b,
        a - b - math.hypot(wide * (a - a_low), other * (b_high - b)),
        a - b + math.hypot(wide * (a_high - a), other * (b - b_low)),
    )
