"""Errors of predictions against reference labels, with confidence intervals over groups of frames.

Units: energies meV/atom, force components meV/A, stress components meV/A^3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from retemper.config.metric_names import ERRORS
from retemper.core.errors import RetemperError
from retemper.data.frames import ENERGY, FORCES, STRESS, stress_matrix
from retemper.evaluation import statistics
from retemper.models.predictions import Predictions, has_stress, name_of
from retemper.records.evaluation import ElementErrors, Errors, Estimate, Means, TypeErrors

METRICS = tuple(ERRORS)


@dataclass(frozen=True)
class FrameErrors:
    """Errors of each frame (predicted minus reference), in the units of this module."""

    n_atoms: np.ndarray  # [n]
    config_type: list[str]  # n
    group: list[str]  # n: trajectory or molecule; frames of one group are not independent
    energy: np.ndarray  # [n] signed error per atom
    force_abs: np.ndarray  # [n] sum over the 3 n_atoms components of |error|
    force_sq: np.ndarray  # [n] sum of error^2
    stress_abs: np.ndarray  # [n] sum over the 9 components; 0 without stress
    stress_sq: np.ndarray  # [n]
    n_stress: np.ndarray  # [n] number of stress components: 9 or 0
    elements: dict[str, tuple[int, float, float]] = field(default_factory=dict)  # atoms, sum |error|, sum error^2

    @property
    def force_rmse(self) -> np.ndarray:
        """[n] force RMSE of each frame."""
        return np.asarray(np.sqrt(self.force_sq / (3 * self.n_atoms)))


def frame_errors(
    frames: Sequence[Atoms], predicted: Predictions, groups: Sequence[str], shift: np.ndarray | None = None
) -> FrameErrors:
    """Errors of `predicted` against the frames' ``REF_*`` labels.

    Parameters
    ----------
    frames
        Labelled structures; stress counts where a frame that is periodic in 3D has ``REF_stress``.
    predicted
        Predictions for them.
    groups
        [n] the group of each frame (`retemper.data.grouping.groups_of`).
    shift
        [n] eV added to the predicted energies (an exchange of atomic reference energies).

    Raises
    ------
    RetemperError
        A frame without energy or forces.
    """
    n = len(frames)
    energies = predicted.energy if shift is None else predicted.energy + shift
    energy, force_abs, force_sq, stress_abs, stress_sq = (np.zeros(n) for _ in range(5))
    n_stress = np.zeros(n, dtype=int)
    per_element: dict[str, np.ndarray] = {}
    for i, atoms in enumerate(frames):
        if ENERGY not in atoms.info or FORCES not in atoms.arrays:
            raise RetemperError(
                f"{name_of(atoms, i)} has no reference labels.",
                expected=f"info {ENERGY!r} (eV) and array {FORCES!r} (eV/A)",
                fix="rename the keys in the file",
            )
        energy[i] = 1e3 * (energies[i] - float(atoms.info[ENERGY])) / len(atoms)
        difference = 1e3 * (predicted.forces[i] - atoms.arrays[FORCES])
        force_abs[i], force_sq[i] = np.abs(difference).sum(), (difference**2).sum()
        symbols = np.asarray(list(atoms.symbols))
        for symbol in np.unique(symbols):
            components = difference[symbols == symbol]
            entry = per_element.setdefault(str(symbol), np.zeros(3))
            entry += (len(components), np.abs(components).sum(), (components**2).sum())
        if STRESS in atoms.info and has_stress(atoms):
            stress_difference = 1e3 * (predicted.stress[i] - stress_matrix(atoms.info[STRESS]))
            stress_abs[i], stress_sq[i], n_stress[i] = np.abs(stress_difference).sum(), (stress_difference**2).sum(), 9
    return FrameErrors(
        n_atoms=np.array([len(atoms) for atoms in frames]),
        config_type=[str(atoms.info.get("config_type", "Default")) for atoms in frames],
        group=list(groups),
        energy=energy,
        force_abs=force_abs,
        force_sq=force_sq,
        stress_abs=stress_abs,
        stress_sq=stress_sq,
        n_stress=n_stress,
        elements={s: (int(v[0]), float(v[1]), float(v[2])) for s, v in sorted(per_element.items())},
    )


# ------------------------------------------------------------------ metrics and their intervals


def _columns(errors: FrameErrors) -> np.ndarray:
    """[n, 9] what is summed over frames: frames, |dE|, dE^2, force components, |dF|, dF^2, stress components, ..."""
    return np.stack(
        [
            np.ones(len(errors.energy)),
            np.abs(errors.energy),
            errors.energy**2,
            3.0 * errors.n_atoms,
            errors.force_abs,
            errors.force_sq,
            errors.n_stress.astype(float),
            errors.stress_abs,
            errors.stress_sq,
        ],
        axis=1,
    )


def _places(metric: str) -> tuple[int, int]:
    """Columns of `_columns` that hold a metric's count and its sum."""
    quantity, _, kind = metric.partition("_")
    first = 3 * ("energy", "force", "stress").index(quantity)
    return first, first + (1 if kind == "mae" else 2)


def power(metric: str) -> float:
    """1 for a mean absolute error, 1/2 for a root mean square."""
    return 1.0 if metric.endswith("_mae") else 0.5


def _from_sums(sums: np.ndarray) -> dict[str, float]:
    """Metrics from sums [9] over frames; NaN where nothing was summed."""
    result = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for metric in METRICS:
            count, total = _places(metric)
            result[metric] = float((sums[total] / sums[count]) ** power(metric))
    return result


def values(errors: FrameErrors) -> dict[str, float]:
    """Each of `METRICS` over all frames; NaN for stress without stress labels."""
    return _from_sums(_columns(errors).sum(axis=0))


def sums(errors: FrameErrors, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """[n_groups] what a metric divides by, and [n_groups] what it sums, of each group that has the label."""
    count, total = _places(metric)
    by_group = statistics.group_sums(errors.group, _columns(errors)[:, [count, total]])
    labelled = by_group[:, 0] > 0
    return by_group[labelled, 0], by_group[labelled, 1]


def bounds(estimate: statistics.Estimate, value: float, confidence: float) -> tuple[float | None, float | None]:
    """Bounds of a two-sided interval around `value`, whose logarithm `estimate` is about; `None`: not known."""
    reach = estimate.reach(statistics.two_sided(confidence))
    low, high = (value * statistics.exp(-reach), value * statistics.exp(reach)) if value > 0 else (value, value)
    return (low, high) if math.isfinite(reach) and math.isfinite(high) else (None, None)


def summarise(errors: FrameErrors, confidence: float) -> Errors:
    """The errors of one model on one set: each of `METRICS` with its interval over groups, by type, by element."""
    types = np.array(errors.config_type)
    by_config_type = {}
    for config_type in sorted(set(errors.config_type)):
        mask = types == config_type
        part = _from_sums(_columns(errors)[mask].sum(axis=0))
        by_config_type[config_type] = TypeErrors(
            n_frames=int(mask.sum()), energy_rmse=part["energy_rmse"], force_rmse=part["force_rmse"]
        )
    by_element = {
        symbol: ElementErrors(n_atoms=n, force_mae=absolute / (3 * n), force_rmse=math.sqrt(square / (3 * n)))
        for symbol, (n, absolute, square) in errors.elements.items()
    }
    content = {
        "n_frames": len(errors.energy),
        "n_groups": len(set(errors.group)),
        "by_config_type": by_config_type,
        "by_element": by_element,
    }
    return Errors.model_validate(content | means([errors], confidence).by_quantity())


def means(seeds: Sequence[FrameErrors], confidence: float) -> Means:
    """`over_seeds` of each of `METRICS`."""
    return Means.model_validate({metric: over_seeds(seeds, metric, confidence) for metric in METRICS})


def over_seeds(seeds: Sequence[FrameErrors], metric: str, confidence: float) -> Estimate | None:
    """Mean and standard deviation over seeds, and the interval of the mean; `None` without labels.

    The interval says how far the mean would move with other groups of test frames; the standard deviation
    (n - 1; None for one seed) how far a model would move with another training seed.
    """
    per_seed = [values(errors)[metric] for errors in seeds]
    if np.isnan(per_seed).any():
        return None
    count = sums(seeds[0], metric)[0]
    totals = np.stack([sums(errors, metric)[1] for errors in seeds], axis=1)
    return _mean(per_seed, statistics.log_error(count, totals, power(metric)), confidence)


def ratio(seeds: Sequence[FrameErrors], base: FrameErrors, metric: str, confidence: float) -> Estimate:
    """Mean over seeds of the ratio of their error to that of `base` on the same frames, as `over_seeds`."""
    per_seed = [values(errors)[metric] / values(base)[metric] for errors in seeds]
    totals = np.stack([sums(errors, metric)[1] for errors in seeds], axis=1)
    return _mean(per_seed, statistics.log_ratio(totals, sums(base, metric)[1][:, None], power(metric)), confidence)


def _mean(per_seed: Sequence[float], estimate: statistics.Estimate, confidence: float) -> Estimate:
    value = float(np.mean(per_seed))
    low, high = bounds(estimate, value, confidence)
    return Estimate(value=value, low=low, high=high, std=float(np.std(per_seed, ddof=1)) if len(per_seed) > 1 else None)
