"""What a foundation says about a sample of the frames: the witness that needs no frames near each other.

A foundation may sit at another level of theory and be off by half a force; units are off by ten or
more. Where its forces, and its energies after one energy an element is taken out, follow the labels, the
size of both against its own tells their units and their signs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from retemper.data.energies_by_element import robust_fit
from retemper.data.frames import FORCES, STRESS
from retemper.data.units.witness import Witness, clip_outliers, weighted_median

Array = np.ndarray
FORCES_FOLLOW = 0.6  # mean cosine between labelled and predicted forces
ENERGIES_FOLLOW, ENERGIES_OPPOSE = 0.5, -0.8  # correlation
# ln of the slope over 22 sets with a foundation of 450 meV/A; of the stress, where pressures add to it
FORCE_SPREAD, ENERGY_SPREAD, STRESS_SPREAD = 0.2, 0.3, 0.7
CAP = 40.0
LEAST_STRESSES = 8


@dataclass(frozen=True)
class Predicted:
    """Predictions for `frames`.

    Attributes
    ----------
    frames
        The sample; its labels are compared with the predictions.
    energy
        [n_frames], eV.
    binding
        [n_frames], eV: sum of the foundation's E0s minus `energy`.
    forces
        n_frames times [n_atoms, 3], eV/A.
    stress
        [n_frames, 3, 3], eV/A^3; NaN for a frame that is not periodic in 3D.
    """

    frames: list[Atoms]
    energy: Array
    binding: Array
    forces: list[Array]
    stress: Array


Predict = Callable[[Sequence[Atoms]], Predicted | None]


def force_slope(predicted: Predicted) -> Witness | None:
    """Labelled over predicted forces: every frame has one vote, by the size of its forces up to ten times the usual."""
    labels = [frame.arrays[FORCES] for frame in predicted.frames]
    slope = _slope(labels, predicted.forces)
    if slope is None or abs(slope[1]) < FORCES_FOLLOW:
        return None
    times = f"{math.copysign(slope[0], slope[1]):.2g} times"
    text = f"forces are {times} those that the foundation predicts (cosine {slope[1]:.2f}, {len(labels)} frames)"
    return _witness(*slope, FORCE_SPREAD, (0, 1), text)


def energy_slope(predicted: Predicted, energies: Array) -> Witness | None:
    """Labelled `energies` [n_frames] over predicted ones, both less one energy an element."""
    sizes = np.array([len(frame) for frame in predicted.frames])
    (y, rank), (x, _) = (robust_fit(predicted.frames, values / sizes) for values in (energies, predicted.energy))
    x, y = clip_outliers(x), clip_outliers(y)
    norm = float(np.sqrt((x @ x) * (y @ y)))
    free = len(x) - rank - 3
    if norm == 0 or free < 3:
        return None
    correlation = min(float(x @ y) / norm, 0.999)
    if ENERGIES_OPPOSE < correlation < ENERGIES_FOLLOW or abs(math.atanh(correlation)) * math.sqrt(free) < 3:
        return None
    slope = float(np.sqrt((y @ y) / (x @ x)))
    text = (
        f"energies vary {math.copysign(slope, correlation):.2g} times as the foundation predicts "
        f"(correlation {correlation:.2f}, {len(x)} frames)"
    )
    return _witness(slope, correlation, ENERGY_SPREAD, (1, 0), text)


def stress_slope(predicted: Predicted) -> Witness | None:
    """Labelled over predicted stress, as `force_slope`; it enters as `force` does in `Witness.chi2`."""
    use = [
        k for k, frame in enumerate(predicted.frames) if STRESS in frame.info and np.isfinite(predicted.stress[k]).all()
    ]
    labels = [np.reshape(predicted.frames[k].info[STRESS], (3, 3)) for k in use]
    slope = _slope(labels, [predicted.stress[k] for k in use]) if len(use) >= LEAST_STRESSES else None
    if slope is None or abs(slope[1]) < FORCES_FOLLOW:
        return None
    times = f"{math.copysign(slope[0], slope[1]):.2g} times"
    text = f"stress is {times} what the foundation predicts (cosine {slope[1]:.2f}, {len(use)} frames)"
    return _witness(*slope, STRESS_SPREAD, (0, 1), text)


def _slope(labels: Sequence[Array], predictions: Sequence[Array]) -> tuple[float, float] | None:
    """Weighted median ratio of norms and mean cosine over frames; frames where either is zero do not count."""
    inner = np.array([float((a * b).sum()) for a, b in zip(labels, predictions, strict=True)])
    size = np.array([float(np.linalg.norm(a)) for a in labels])
    predicted_size = np.array([float(np.linalg.norm(b)) for b in predictions])
    use = (size > 0) & (predicted_size > 0)
    if not use.any():
        return None
    inner, size, predicted_size = inner[use], size[use], predicted_size[use]
    weight = np.sqrt(size * predicted_size)
    weight = np.minimum(weight, 10 * np.median(weight))
    cosine = float(np.average(inner / (size * predicted_size), weights=weight))
    return math.exp(weighted_median(np.log(size / predicted_size), weight)), cosine


def _witness(slope: float, correlation: float, spread: float, powers: tuple[int, int], text: str) -> Witness:
    sigma = math.hypot(spread, math.log(abs(correlation)))
    return Witness(math.log(slope), *powers, sigma, sigma, True, text, cap=CAP, negative=correlation < 0)
