"""Intervals and comparisons over what is independent: groups of frames, and training seeds.

Frames of one trajectory or molecule err alike, so a group of frames counts once. Every figure
here is a function of sums over groups. Its standard error comes from leaving out each group in
turn (delete-a-group jackknife), its quantile from Student's t with one degree of freedom less
than the number of groups, counted by their weight: one group that makes most of the error is no
six. The jackknife holds its level with five groups and heavy tails, where a bootstrap over so
few draws does not; `tests/evaluation/test_statistics.py` measures both.

Models differ in how far their seeds scatter (naive fine-tuning by some 0.2 %, training from
scratch by 7 %), and two or three seeds of one recipe say little of it. `Scatter` lets all
recipes speak for each, by as much as they are alike.

References
----------
MacKinnon, Nielsen and Webb, J. Appl. Econometrics 38, 671 (2023): jackknife over groups.
Carter, Schnepel and Steigerwald, Rev. Econ. Stat. 99, 698 (2017): effective number of groups.
Smyth, Stat. Appl. Genet. Mol. Biol. 3, 3 (2004): moderated variances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Array = np.ndarray
FEWEST_GROUPS = 5  # below, nothing is said to be shown
LEAST_FREEDOM = 2  # however the weight lies; fewer degrees would make intervals that say nothing, and hold no better
BINS = 800  # of the logarithm of a variance, when variances are added


@dataclass(frozen=True)
class Interval:
    """An estimate, its bounds, and the number of groups that it rests on. Infinite bounds: nothing is known."""

    value: float
    low: float
    high: float
    groups: int


@dataclass(frozen=True)
class Estimate:
    """A value on a scale where its error is symmetric: standard error, degrees of freedom, groups."""

    value: float
    error: float
    freedom: float
    groups: int

    def reach(self, confidence: float) -> float:
        """Distance of the one-sided bound of `confidence` from the value; infinite with a single group."""
        from scipy import stats

        if self.groups < 2 or not math.isfinite(self.error):
            return math.inf
        return float(stats.t.ppf(confidence, self.freedom)) * self.error

    def interval(self, confidence: float, scale: Callable[[float], float] = float) -> Interval:
        """One-sided bounds that each hold with `confidence`, on the scale that `scale` (increasing) leads to."""
        reach = self.reach(confidence)
        return Interval(scale(self.value), scale(self.value - reach), scale(self.value + reach), self.groups)


def two_sided(confidence: float) -> float:
    """The one-sided confidence of each bound of a two-sided interval."""
    return 0.5 + confidence / 2


def exp(value: float) -> float:
    """e to the power of `value`, infinite where that is too large."""
    return math.exp(value) if value < 700 else math.inf


# ------------------------------------------------------------------ groups


def group_sums(groups: Sequence[str], columns: Array) -> Array:
    """Sums over the frames of each group.

    Parameters
    ----------
    groups
        [n] the group of each frame.
    columns
        [n, ...] what is summed.

    Returns
    -------
    numpy.ndarray
        [n_groups, ...], groups in alphabetical order.
    """
    names, which = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), *columns.shape[1:]))
    np.add.at(sums, which, columns)
    return sums


def jackknife(sums: Array, statistic: Callable[[Array], Array], weights: Array | None = None) -> Estimate:
    """A statistic of sums over groups, with the error that leaving out each group in turn gives.

    Parameters
    ----------
    sums
        [n_groups, ...] sums of each group.
    statistic
        Maps sums over groups [m, ...] to values [m], one a row.
    weights
        [n_groups] share of each group in what `statistic` depends on, not negative; without, all count the same.
    """
    n = len(sums)
    total = sums.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(total[None])[0])
        if n < 2:
            return Estimate(value, math.inf, 1.0, n)
        replicates = np.asarray(statistic(total[None] - sums), dtype=float)
        error = math.sqrt((n - 1) / n * float(((replicates - value) ** 2).sum()))
    share = np.full(n, 1.0 / n) if weights is None or not weights.sum() else weights / weights.sum()
    freedom = max(float(min(n - 1, LEAST_FREEDOM)), 1.0 / float((share**2).sum()) - 1)
    return Estimate(value, error if math.isfinite(error) else math.inf, freedom, n)


def log_error(counts: Array, parts: Array, power: float) -> Estimate:
    """Logarithm of an error (sum of `parts` / sum of `counts`) ** `power`, mean over models.

    Parameters
    ----------
    counts
        [n_groups] what the parts are divided by: frames or force components.
    parts
        [n_groups, n_models] sums of squares or of absolute values.
    power
        1 for a mean absolute error, 1/2 for a root mean square.
    """

    def statistic(sums: Array) -> Array:
        return np.asarray(np.log(np.mean((sums[:, 1:] / sums[:, :1]) ** power, axis=1)))

    return jackknife(np.column_stack([counts, parts]), statistic, parts.mean(axis=1))


def log_ratio(errors: Array, reference: Array, power: float) -> Estimate:
    """Logarithm of the ratio of two errors on the same frames, geometric means over the models of each side.

    Parameters
    ----------
    errors, reference
        [n_groups, n_models] sums of squares (`power` 1/2) or of absolute values (`power` 1).
    """
    k = errors.shape[1]

    def statistic(sums: Array) -> Array:
        logs = power * np.log(sums)
        return np.asarray(logs[:, :k].mean(axis=1) - logs[:, k:].mean(axis=1))

    both = np.column_stack([errors, reference])
    shares = both / np.maximum(both.sum(axis=0), np.finfo(float).tiny)
    return jackknife(both, statistic, (shares[:, :k].mean(axis=1) + shares[:, k:].mean(axis=1)) / 2)


def mean_difference(groups: Sequence[str], differences: Array) -> Estimate:
    """Mean of paired differences [n] (one model minus the other on the same structure), over groups of structures."""
    sums = group_sums(groups, np.column_stack([np.ones(len(differences)), differences]))
    return jackknife(sums, lambda total: np.asarray(total[:, 1] / total[:, 0]), sums[:, 0])


def effective_freedom(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent parts: F. E. Satterthwaite, Biometrics Bulletin 2, 110 (1946)."""
    below = sum(variance**2 / freedom for variance, freedom in zip(variances, freedoms, strict=True))
    return float(sum(variances) ** 2 / below)


def weighted_sum(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """Sum of independent estimates, each times its weight."""
    value = sum(weight * part.value for weight, part in parts)
    variances = [(weight * part.error) ** 2 for weight, part in parts]
    total, groups = sum(variances), sum(part.groups for _, part in parts)
    if not math.isfinite(total) or total == 0:
        return Estimate(value, math.sqrt(total), min(part.freedom for _, part in parts), groups)
    freedom = effective_freedom(variances, [part.freedom for _, part in parts])
    return Estimate(value, math.sqrt(total), freedom, groups)


# ------------------------------------------------------------------ seeds

# Grids of the logarithm of a standard deviation over seeds, of its centre over recipes and of its spread. Strategies
# of this package scatter by 0.2 to 7 %; single recipes may lie anywhere.
LOGS = np.linspace(math.log(1e-4), math.log(3.0), 64)
CENTRES = np.linspace(math.log(1e-3), math.log(0.1), 24)
SPREADS = np.linspace(0.1, 3.0, 15)


@lru_cache(maxsize=1)
def _prior() -> tuple[Array, Array]:
    """Probability of LOGS for each centre and spread [24, 15, 64], and of the spreads [15]."""
    from scipy import stats

    density = stats.cauchy.pdf((LOGS - CENTRES[:, None, None]) / SPREADS[None, :, None])
    return density / density.sum(axis=-1, keepdims=True), np.exp(-0.5 * SPREADS**2)


class Scatter:
    """How far the logarithm of an error scatters over seeds, for each recipe, as far as seeds tell.

    The log standard deviations of the recipes follow a Cauchy distribution, so that one that is
    unlike all others may be; its centre has a flat prior, its width a half-normal one of scale 1
    (a factor of 2.7). Of variances estimated on n - 1 degrees of freedom the posterior of each recipe
    follows; everything is a sum over a grid. With a normal distribution instead (Smyth's moderated
    variances, estimated from few recipes of two seeds) recipes that are unlike are taken as alike.

    Parameters
    ----------
    logs
        Recipe -> logarithms of its error, one a seed; those with a single seed take part as what the others say of
        them.
    """

    def __init__(self, logs: Mapping[str, Sequence[float]]):
        self.names = list(logs)
        self.seeds = {name: len(values) for name, values in logs.items()}
        self.freedom = sum(n - 1 for n in self.seeds.values())  # degrees of freedom of all recipes together
        likelihood = {name: _likelihood(np.asarray(values, dtype=float)) for name, values in logs.items()}
        density, spreads = _prior()
        self._logs = {name: density * like for name, like in likelihood.items()}
        evidence = np.sum([np.log(np.maximum(p.sum(axis=-1), 1e-300)) for p in self._logs.values()], axis=0)
        weight = np.exp(evidence - evidence.max()) * spreads
        self._weight = weight / weight.sum()

    @property
    def known(self) -> bool:
        """Whether any recipe has two seeds or more."""
        return self.freedom > 0

    def _given(self, name: str) -> Array:
        """[24, 15, 64] probability of LOGS for each centre and spread."""
        joint = self._logs[name]
        return np.asarray(joint / np.maximum(joint.sum(axis=-1, keepdims=True), 1e-290))

    def variances(self, *names: str) -> tuple[Array, Array]:
        """Variance of the sum of the means over seeds of one or two recipes: values and their probabilities."""
        variance = np.exp(2 * LOGS)
        first = self._given(names[0])
        if len(names) == 1:
            return variance / self.seeds[names[0]], np.einsum("mt,mtl->l", self._weight, first)
        size = len(LOGS)
        both = (self._weight[:, :, None] * first).reshape(-1, size).T @ self._given(names[1]).reshape(-1, size)
        total = variance[:, None] / self.seeds[names[0]] + variance[None, :] / self.seeds[names[1]]
        return total.ravel(), both.ravel()


def _likelihood(logs: Array) -> Array:
    """[64] likelihood of each of LOGS for the logarithms of one recipe's errors over seeds."""
    freedom = len(logs) - 1
    if freedom < 1:
        return np.ones(len(LOGS))
    x = float(((logs - logs.mean()) ** 2).sum()) * np.exp(-2 * LOGS)
    log = -freedom * LOGS - 0.5 * x
    return np.asarray(np.exp(log - log.max()))


def with_seeds(estimate: Estimate, scatter: Scatter, names: Sequence[str], confidence: float) -> Interval:
    """Interval of a log error, or of a difference of two, for other groups of frames and other seeds.

    The chance that the error of the value is beyond the bound is the mean over all variances that are
    possible: of the groups (scaled inverse chi squared) plus that over seeds of `names`.

    Parameters
    ----------
    estimate
        Of the means over seeds, over groups.
    names
        Recipes whose other seeds count: one, or both sides of a comparison. A side that is one given
        model (the foundation) is left out.
    """
    from scipy import optimize, special, stats

    if estimate.groups < 2 or not math.isfinite(estimate.error):
        return estimate.interval(confidence)
    seeds, chances = _bin(*scatter.variances(*names), BINS // 4)
    low, high = (float(np.log(stats.chi2.ppf(p, estimate.freedom))) for p in (1e-10, 1 - 1e-10))
    logs = np.linspace(low, high, 64)
    density = stats.chi2.pdf(np.exp(logs), estimate.freedom) * np.exp(logs)
    groups = max(estimate.error, 1e-12) ** 2 * estimate.freedom / np.exp(logs)
    total = (groups[:, None] + seeds[None, :]).ravel()
    variance, weight = _bin(total, (density[:, None] / density.sum() * chances[None, :]).ravel(), BINS)
    deviation = np.sqrt(variance)

    def beyond(log_reach: float) -> float:
        with np.errstate(over="ignore"):  # narrow parts contribute nothing
            log = special.logsumexp(special.log_ndtr(-np.exp(log_reach) / deviation), b=weight)
        return float(log) - math.log(1 - confidence)

    reach = math.exp(optimize.brentq(beyond, math.log(deviation[0]) - 10, math.log(deviation[-1]) + 5))
    return Interval(estimate.value, estimate.value - reach, estimate.value + reach, estimate.groups)


def _bin(variances: Array, chances: Array, bins: int) -> tuple[Array, Array]:
    """A distribution of variances in at most `bins` bins of equal width of their logarithm: centres, probabilities."""
    weight, edges = np.histogram(np.log(variances), bins, weights=chances)
    occupied = weight > 0
    return np.exp((edges[1:] + edges[:-1])[occupied] / 2), weight[occupied] / weight.sum()
