"""What a foundation says about a sample of labelled frames, as a witness of their units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.data.units.predicted import Predict, Predicted
from retemper.data.units.witness import sample
from retemper.models import mace, predict
from retemper.prepare.generated_pool import Energies

FRAMES, ATOMS = 60, 2500  # of the sample: seconds on one core


def predictor(model: Path, head: str | None, device: str) -> Predict:
    """A function that predicts a sample of the frames it is given; `None` where the model knows none of them."""

    def ask(frames: Sequence[Atoms]) -> Predicted | None:
        atomic_energies = mace.atomic_energies(model, head)
        subset = sample(
            [frame for frame in frames if atomic_energies.keys() >= set(frame.numbers.tolist())], FRAMES, ATOMS
        )
        if not subset:
            return None
        predicted = predict.predict(model, subset, head=head, device=device, dtype="float32", backend="torch")
        atoms = np.array([sum(atomic_energies[z] for z in frame.numbers.tolist()) for frame in subset])
        return Predicted(subset, predicted.energy, atoms - predicted.energy, predicted.forces, predicted.stress)

    return ask


def energies_of(model: Path, head: str | None, device: str, max_stress: float) -> Energies:
    """A function that gives energies (eV) and largest forces (eV/A) of structures, for `generated_pool`.

    Where a component of the stress is above `max_stress` (eV/A^3) the largest force counts as infinite.
    """

    def ask(frames: Sequence[Atoms]) -> tuple[np.ndarray, np.ndarray]:
        predicted = predict.predict(model, frames, head=head, device=device, dtype="float32", backend="torch")
        largest = np.array([np.linalg.norm(forces, axis=1).max() for forces in predicted.forces])
        largest[(np.abs(predicted.stress) > max_stress).reshape(len(frames), -1).any(axis=1)] = np.inf
        return predicted.energy, largest

    return ask
