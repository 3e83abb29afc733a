"""One measurement on labels, and the small statistics that measurements share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

Array = np.ndarray


@dataclass(frozen=True)
class Witness:
    """One measurement: the logarithm of a number that is 1 when the units are right.

    Attributes
    ----------
    log
        ln of the measured number's size; its sign is in `negative`.
    energy, force
        How much `log` grows when ln of all energies, or of all forces, grows by 1.
    above, below
        Standard deviation of `log` on either side of 0 over published data sets.
    hard
        Whether the number depends on units alone; a soft one also depends on the kind of data.
    text
        The measurement in words.
    cap
        Largest chi squared that it may contribute.
    negative
        Whether the measured number is negative.
    """

    log: float
    energy: float
    force: float
    above: float
    below: float
    hard: bool
    text: str
    cap: float = math.inf
    negative: bool = False

    def chi2(self, log_energy: float, log_force: float) -> float:
        """Squared deviation over variance after scaling energies and forces."""
        deviation = self.log + self.energy * log_energy + self.force * log_force
        return min((deviation / (self.above if deviation > 0 else self.below)) ** 2, self.cap)


def weighted_median(values: Array, weights: Array) -> float:
    """The value below which half of the weight lies."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def clip_outliers(values: Array) -> Array:
    """Deviations from the median, none larger than six median deviations."""
    values = values - np.median(values)
    limit = 6 * np.median(np.abs(values))
    return np.asarray(np.clip(values, -limit, limit))


def sample(frames: Sequence[Atoms], number: int, atoms: int) -> list[Atoms]:
    """A fixed random choice of at most `number` frames and about `atoms` atoms."""
    subset: list[Atoms] = []
    total = 0
    for k in np.random.default_rng(0).permutation(len(frames))[:number]:
        subset.append(frames[k])
        total += len(frames[k])
        if total > atoms:
            break
    return subset
