"""What of a foundation's errors composition and structure explain, and whether what is left has two modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Errors:
    """Energies of labelled frames against a model's; n frames of more than one atom."""

    per_atom: Array  # [n] eV/atom, label minus prediction
    shares: Array  # [n, n_elements] share of each element
    atoms: Array  # [n] number of atoms
    features: Array  # [n, n_features] mean descriptors
    states: Sequence[str]  # n: charge and spin, in words
    forces: Array  # [n] eV/A, RMS error of the forces
    sources: Sequence[str]  # n: file:index

    def __len__(self) -> int:
        return len(self.per_atom)

    @property
    def files(self) -> Array:
        """[n] names of the files."""
        return np.array([source.rpartition(":")[0] for source in self.sources], dtype=object)


def scatter(values: Array) -> float:
    """Standard deviation of normal `values`, from the median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


# ------------------------------------------------------------------ what composition and structure explain


def unexplained(errors: Errors, structure: bool = True) -> Array:
    """Errors [n], eV/atom, less what all other frames tell of them by composition, charge and, if asked, descriptors.

    Ridge regression with Huber's weights; its strength is the one with the smallest scatter of the leave-one-out
    residuals, which are returned about their median. An energy's error grows with the root of the number of atoms:
    residuals per atom are scaled by the root of that number over its median, so that all frames have one scatter.
    """
    columns, y = _columns(errors, structure), errors.per_atom
    scale = np.sqrt(errors.atoms / np.median(errors.atoms))

    def rest(weights: Array, strength: float) -> Array:
        left = scale * _left_out(columns, y, weights * scale**2, strength)
        return np.asarray(left - np.median(left))

    trials = len(y) * 10.0 ** np.arange(-7, 1)
    weights: Array = np.ones(len(y))
    strength, residuals = 0.0, y
    for round_ in range(6):
        if round_ < 2:
            strength = float(min(trials, key=lambda s: scatter(rest(weights, s))))
        residuals = rest(weights, strength)
        weights = 1 / np.maximum(1.0, np.abs(residuals) / max(scatter(residuals), 1e-9) / 1.5)
    return residuals


def _columns(errors: Errors, structure: bool) -> Array:
    """Principal components [n, k] of all that may explain an error, each quantity with unit variance.

    At most a third as many as frames: more would explain anything.
    """
    names = sorted(set(errors.states))
    state = np.array([[name == other for other in names] for name in errors.states], dtype=float)
    features = errors.features.astype(float) if structure else np.empty((len(errors), 0))
    every = np.hstack([errors.shares, state / errors.atoms[:, None], features])
    every = every - every.mean(axis=0)
    width = every.std(axis=0)
    every = np.asarray(every[:, width > 1e-8] / width[width > 1e-8])
    if not every.shape[1]:
        return every
    left, singular, _ = np.linalg.svd(every, full_matrices=False)
    significant = (singular > 1e-6 * singular[0]) & (np.arange(len(singular)) < len(every) / 3)
    return np.asarray(left[:, significant] * singular[significant])


def _left_out(columns: Array, y: Array, weights: Array, strength: float) -> Array:
    """Leave-one-out residuals [n] of weighted ridge regression with a free constant."""
    total = weights.sum()
    centred = columns - weights @ columns / total
    rest = y - weights @ y / total
    normal = (centred * weights[:, None]).T @ centred
    normal.flat[:: len(normal) + 1] += strength
    inverse = np.linalg.solve(normal, centred.T)
    leverage = weights * (np.einsum("ij,ji->i", centred, inverse) + 1 / total)
    return np.asarray((rest - centred @ (inverse @ (weights * rest))) / np.maximum(1 - leverage, 0.05))


def two_modes(values: Array, rounds: int = 100) -> tuple[float, Array, float, Array]:
    """Two normal distributions of one width, by expectation maximisation from several starts.

    Returns
    -------
    gain
        Of the Bayesian information criterion over one distribution; positive: two are better.
    centres
        [2] of the larger and the smaller one.
    width
        Standard deviation within.
    second
        [n] booleans: the frames of the smaller one.
    """
    n = len(values)
    alone = -n * np.log(max(values.std(), 1e-12)) - n / 2
    best: tuple[float, Array, float, Array] | None = None
    for cut in np.quantile(values, [0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99]):
        low = values <= cut
        if not 0 < low.sum() < n:
            continue
        share = np.array([low.mean(), 1 - low.mean()])
        centre = np.array([values[low].mean(), values[~low].mean()])
        width = max(float(np.sqrt(((values[:, None] - centre) ** 2).min(axis=1).mean())), 1e-9)
        for _ in range(rounds):
            exponent = np.log(share) - 0.5 * ((values[:, None] - centre) / width) ** 2 - np.log(width)
            top = exponent.max(axis=1, keepdims=True)
            belongs = np.exp(exponent - top)
            total = belongs.sum(axis=1, keepdims=True)
            belongs /= total
            share = belongs.mean(axis=0) + 1e-12
            centre = (belongs * values[:, None]).sum(axis=0) / (n * share)
            width = max(float(np.sqrt((belongs * (values[:, None] - centre) ** 2).sum() / n)), 1e-9)
        likelihood = float((np.log(total) + top).sum())
        if best is None or likelihood > best[0]:
            best = likelihood, centre, width, belongs.argmax(axis=1)
    if best is None:
        return 0.0, np.zeros(2), 1.0, np.zeros(n, dtype=bool)
    likelihood, centre, width, member = best
    minor = int(np.bincount(member, minlength=2).argmin())
    gain = 2 * (likelihood - alone) - 2 * np.log(n)  # two parameters more: a centre and a share
    return float(gain), centre[[1 - minor, minor]], width, member == minor
