"""What a foundation says about a sample of labelled frames, as a witness of their units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.data.units.predicted import Predict, Predicted
from retemper.data.units.witness import sample
from retemper.models import mace, predict

FRAMES, ATOMS = 60, 2500  # of the sample: seconds on one core


def predictor(model: Path, head: str | None, device: str) -> Predict:
    """A function that predicts a sample of the frames it is given; `None` where the model knows none of them."""

    def ask(frames: Sequence[Atoms]) -> Predicted | None:
        own = mace.atomic_energies(model, head)
        chosen = sample([frame for frame in frames if own.keys() >= set(frame.numbers.tolist())], FRAMES, ATOMS)
        if not chosen:
            return None
        found = predict.predict(model, chosen, head=head, device=device, dtype="float32", backend="torch")
        atoms = np.array([sum(own[z] for z in frame.numbers.tolist()) for frame in chosen])
        return Predicted(chosen, found.energy, atoms - found.energy, found.forces, found.stress)

    return ask
