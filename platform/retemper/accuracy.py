"""Errors of predictions against reference labels, with bootstrap confidence intervals over frames.

Units: energies meV/atom, force components meV/A, stress components meV/A^3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from retemper.errors import RetemperError
from retemper.frames import ENERGY, FORCES, STRESS
from retemper.inference import Predictions, has_stress, name_of

METRICS = ("energy_mae", "energy_rmse", "force_mae", "force_rmse", "stress_mae", "stress_rmse")
BOOTSTRAP_SEED = 0  # one resampling of the same frames for every model: differences and ratios are paired
_CHUNK = 4_000_000  # resampled frames held in memory at a time


@dataclass(frozen=True)
class FrameErrors:
    """Errors of each frame (predicted minus reference), in the units of this module."""

    n_atoms: np.ndarray  # [n]
    config_type: list[str]  # n
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


def stress_matrix(value: Any) -> np.ndarray:
    """A stress label of shape (3, 3), (9,) or Voigt (6,: xx yy zz yz xz xy) as [3, 3]."""
    array = np.asarray(value, dtype=float)
    if array.size == 6:
        xx, yy, zz, yz, xz, xy = array.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return array.reshape(3, 3)


def frame_errors(frames: Sequence[Atoms], predicted: Predictions, shift: np.ndarray | None = None) -> FrameErrors:
    """Errors of `predicted` against the frames' ``REF_*`` labels.

    Parameters
    ----------
    frames
        Labelled structures; stress counts where a frame that is periodic in 3D has ``REF_stress``.
    predicted
        Predictions for them.
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
            own = difference[symbols == symbol]
            entry = per_element.setdefault(str(symbol), np.zeros(3))
            entry += (len(own), np.abs(own).sum(), (own**2).sum())
        if STRESS in atoms.info and has_stress(atoms):
            off = 1e3 * (predicted.stress[i] - stress_matrix(atoms.info[STRESS]))
            stress_abs[i], stress_sq[i], n_stress[i] = np.abs(off).sum(), (off**2).sum(), 9
    return FrameErrors(
        n_atoms=np.array([len(atoms) for atoms in frames]),
        config_type=[str(atoms.info.get("config_type", "Default")) for atoms in frames],
        energy=energy,
        force_abs=force_abs,
        force_sq=force_sq,
        stress_abs=stress_abs,
        stress_sq=stress_sq,
        n_stress=n_stress,
        elements={s: (int(v[0]), float(v[1]), float(v[2])) for s, v in sorted(per_element.items())},
    )


# ------------------------------------------------------------------ metrics and their resampling


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


def _from_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics from sums [..., 9] over frames; NaN where nothing was summed."""
    result = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for k, quantity in enumerate(("energy", "force", "stress")):
            count, absolute, square = (sums[..., 3 * k + j] for j in range(3))
            result[f"{quantity}_mae"] = absolute / count
            result[f"{quantity}_rmse"] = np.sqrt(square / count)
    return result


def values(errors: FrameErrors) -> dict[str, float]:
    """Each of `METRICS` over all frames; NaN for stress without stress labels."""
    return {name: float(value) for name, value in _from_sums(_columns(errors).sum(axis=0)).items()}


def resampled(errors: FrameErrors, resamples: int, seed: int = BOOTSTRAP_SEED) -> dict[str, np.ndarray]:
    """Each of `METRICS` on `resamples` bootstrap samples of the frames: name -> [resamples].

    Whole frames are drawn with replacement (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, ch. 6), because the atoms of a frame are not independent. The draws depend
    on the number of frames and the seed alone.
    """
    columns = _columns(errors)
    n = len(columns)
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // n)
    sums = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        sums.append(counts @ columns)
    return _from_sums(np.concatenate(sums))


def percentiles(samples: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of bootstrap samples; NaN samples (no frame with the label drawn) do not count."""
    tail = 50.0 * (1.0 - confidence)
    low, high = np.nanpercentile(samples, [tail, 100.0 - tail])
    return float(low), float(high)


def summarise(errors: FrameErrors, samples: dict[str, np.ndarray], confidence: float) -> dict[str, Any]:
    """The errors of one model on one set: each metric with its interval, by configuration type, by element."""
    result: dict[str, Any] = {"n_frames": len(errors.energy)}
    for name, value in values(errors).items():
        if np.isnan(value):
            result[name] = None
        else:
            low, high = percentiles(samples[name], confidence)
            result[name] = {"value": value, "low": low, "high": high}
    types = np.array(errors.config_type)
    columns = _columns(errors)
    result["by_config_type"] = {}
    for config_type in sorted(set(errors.config_type)):
        own = types == config_type
        part = _from_sums(columns[own].sum(axis=0))
        result["by_config_type"][config_type] = {
            "n_frames": int(own.sum()),
            "energy_rmse": float(part["energy_rmse"]),
            "force_rmse": float(part["force_rmse"]),
        }
    result["by_element"] = {
        symbol: {"n_atoms": n, "force_mae": absolute / (3 * n), "force_rmse": float(np.sqrt(square / (3 * n)))}
        for symbol, (n, absolute, square) in errors.elements.items()
    }
    return result


def over_seeds(seeds: Sequence[float], samples: Sequence[np.ndarray], confidence: float) -> dict[str, float | None]:
    """Mean and standard deviation over seeds, and the bootstrap interval of the mean.

    The interval says how far the mean would move with other test frames; the standard deviation
    (n - 1; None for one seed) how far a model would move with another training seed.
    """
    low, high = percentiles(np.mean(np.stack(list(samples)), axis=0), confidence)
    spread = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None
    return {"mean": float(np.mean(seeds)), "std": spread, "low": low, "high": high}
