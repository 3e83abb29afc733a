"""Weights of a frame's own labels in the training loss, as MACE reads them from its info (``dataset.weights``).

MACE multiplies a frame's error per atom in energy, in forces and in stress by ``config_energy_weight``,
``config_forces_weight`` and ``config_stress_weight`` before its Huber loss: a small error counts by the square of the
weight, a large one by the weight. Its universal loss reads no other weight of a frame, not even ``config_weight``.
Errors of evaluation never count weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ase import Atoms

from retemper.core.errors import RetemperError

WEIGHTS = {part: f"config_{part}_weight" for part in ("energy", "forces", "stress")}
LARGEST = 1e4
SPELLED = re.compile(r"config_(\w+_)?weight")


def is_weight(key: str) -> bool:
    """Whether MACE takes an info key for a weight of the frame."""
    return SPELLED.fullmatch(key) is not None


def weights_of(atoms: Atoms) -> tuple[float, float, float]:
    """Weights of a frame's energy, forces and stress in training; 1 where it does not say, NaN for no number."""
    numbers = [_number(atoms.info.get(key, 1.0)) for key in WEIGHTS.values()]
    energy, forces, stress = (math.nan if number is None else number for number in numbers)
    return energy, forces, stress


def stated_weights(atoms: Atoms) -> dict[str, object]:
    """Weights among a frame's info that are not 1, as they stand there."""
    return {key: value for key, value in atoms.info.items() if is_weight(key) and not _is_one(value)}


def _is_one(value: Any) -> bool:
    number = _number(value)
    return number is not None and number == 1.0


def _number(value: Any) -> float | None:
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def fault(weights: Mapping[str, Any]) -> str | None:
    """What is wrong with a frame's declared weights, in words; `None` when nothing is."""
    for key, value in weights.items():
        number = _number(value)
        if key not in WEIGHTS.values():
            return f"{key} is no weight that the training loss reads"
        if number is None or not 0 <= number <= LARGEST:
            return f"{key} is not a number from 0 to {LARGEST:g}"
    if all(_number(weights.get(key)) == 0 for key in (WEIGHTS["energy"], WEIGHTS["forces"])):
        return "the weights of energy and forces are 0: nothing to train on"
    return None


def refusal(counts: Mapping[str, int], origin: str, setting: str = "dataset.weights") -> RetemperError:
    """The error for weights that no setting declares; `counts` has the frames by key."""
    listing = ", ".join(f"{key} in {number} frame(s)" for key, number in counts.items())
    return RetemperError(
        f"{origin}: frames bring weights of their own, which would change the training loss.",
        expected=f"no weights other than 1 while {setting} is refuse",
        got=listing,
        fix="dataset.weights: use in params.yaml trains with them, dataset.weights: ignore drops them",
    )


def summary(frames: Iterable[tuple[float, float, float]]) -> dict[str, dict[str, float]]:
    """Number of frames whose weight is not 1, and the range, of each label that has such frames."""
    table = np.array(list(frames), dtype=float).reshape(-1, len(WEIGHTS))
    return {
        key: {"frames": int((column != 1).sum()), "min": float(column.min()), "max": float(column.max())}
        for key, column in zip(WEIGHTS.values(), table.T, strict=True)
        if (column != 1).any()
    }
