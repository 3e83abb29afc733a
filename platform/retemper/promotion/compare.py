"""Whether one model is better than another: paired over groups of frames, and over seeds.

Two models are compared on the same frames, so that what makes a frame hard for both cancels:
the logarithm of the ratio of their errors (RMSE or MAE), with an error over groups of frames
(`retemper.evaluation.statistics.log_ratio`). Of two recipes the means over seeds are compared, and the
scatter over seeds of each (`retemper.evaluation.statistics.Scatter`) is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from retemper.evaluation import statistics
from retemper.evaluation.accuracy import power
from retemper.evaluation.statistics import Interval, Scatter
from retemper.registry.measurements import Errors

QUANTITIES = ("energy_rmse", "energy_mae", "force_rmse")


def parts(errors: Errors, quantity: str) -> np.ndarray:
    """[n_frames] what is summed over frames; the sums' ratio, to the metric's power, is the ratio of the errors."""
    if quantity == "force_rmse":
        return errors.force_sq
    return np.abs(errors.energy) if quantity == "energy_mae" else errors.energy**2


def _estimate(errors: Sequence[Errors], reference: Sequence[Errors], quantity: str) -> statistics.Estimate:
    """log(E / E_reference), geometric means over the models of each side, on the same frames in the same order."""
    columns = np.stack([parts(entry, quantity) for entry in (*errors, *reference)], axis=1)
    sums = statistics.group_sums(errors[0].group, columns)
    return statistics.log_ratio(sums[:, : len(errors)], sums[:, len(errors) :], power(quantity))


def over_groups(errors: Errors, reference: Errors, quantity: str, confidence: float) -> Interval:
    """E / E_reference of two models, and how far it would move with other groups of frames.

    Parameters
    ----------
    errors, reference
        On the same frames in the same order; the groups of `errors` count.
    confidence
        Of each bound.
    """
    return _estimate([errors], [reference], quantity).interval(confidence, statistics.exp)


def recipe_error(
    seeds: Sequence[Errors], quantity: str, confidence: float, scatter: Scatter | None, name: str
) -> Interval:
    """Error of a recipe, geometric mean over its seeds, and how far it would move with other groups and other seeds.

    Parameters
    ----------
    seeds
        One entry a seed.
    confidence
        Of each bound.
    scatter, name
        Of the logarithms of the recipes' errors over seeds, and this recipe in it; `None`: other groups alone.
    """
    count = 3.0 * seeds[0].n_atoms if quantity == "force_rmse" else np.ones(len(seeds[0].energy))
    columns = np.stack([count, *(parts(errors, quantity) for errors in seeds)], axis=1)
    sums = statistics.group_sums(seeds[0].group, columns)
    estimate = statistics.log_error(sums[:, 0], sums[:, 1:], power(quantity))
    if scatter is None:
        return estimate.interval(confidence, statistics.exp)
    return _on_scale(statistics.with_seeds(estimate, scatter, [name], confidence))


def over_seeds(
    errors: Sequence[Errors],
    reference: Sequence[Errors],
    quantity: str,
    confidence: float,
    scatter: Scatter,
    names: Sequence[str],
) -> Interval:
    """E / E_reference of two recipes, and how far it would move with other groups of frames and other seeds.

    Parameters
    ----------
    errors, reference
        One entry a seed.
    scatter
        Of the logarithms of the recipes' errors over seeds.
    names
        The recipes of both sides in `scatter`, or of `errors` alone where `reference` is one given model that no other
        seed could have made (the foundation).
    """
    return _on_scale(statistics.with_seeds(_estimate(errors, reference, quantity), scatter, names, confidence))


def _on_scale(logs: Interval) -> Interval:
    """From logarithms to the numbers themselves."""
    return Interval(statistics.exp(logs.value), statistics.exp(logs.low), statistics.exp(logs.high), logs.groups)


def scatter(recipes: Mapping[str, Sequence[Errors]], quantity: str) -> Scatter:
    """What the seeds of all recipes say of the scatter of log E over seeds."""
    return Scatter(
        {
            name: [power(quantity) * math.log(max(float(parts(e, quantity).sum()), 1e-300)) for e in seeds]
            for name, seeds in recipes.items()
            if seeds
        }
    )


def difference(
    estimate: tuple[float, float, float],
    reference: tuple[float, float, float],
    confidence: float,
    levels: tuple[float, float] = (0.95, 0.95),
    groups: int = 0,
) -> Interval:
    """estimate - reference of two independent estimates (value, low, high with two-sided intervals of these levels).

    Bounds by the method of variance estimates recovery, which for shares with Wilson intervals
    is Newcombe's method 10 (Zou and Donner, Statistics in Medicine 27, 1693, 2008; Newcombe,
    Statistics in Medicine 17, 873, 1998). The half widths are scaled to `confidence` as a
    normal distribution's.
    """
    from scipy import stats

    factor, reference_factor = (float(stats.norm.ppf(confidence) / stats.norm.ppf(0.5 + level / 2)) for level in levels)
    (a, a_low, a_high), (b, b_low, b_high) = estimate, reference
    return Interval(
        a - b,
        a - b - math.hypot(factor * (a - a_low), reference_factor * (b_high - b)),
        a - b + math.hypot(factor * (a_high - a), reference_factor * (b - b_low)),
        groups,
    )
