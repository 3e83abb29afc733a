"""Single points as a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms

from retemper.models.evaluators import Evaluator


def single_points(evaluator: Evaluator, frames: Sequence[Atoms], stress: bool = False) -> dict[str, Any]:
    """Energies [n] (eV), forces (list of [n_atoms, 3], eV/A), stresses [n, 3, 3] (eV/A^3) and reasons of failure."""
    found = evaluator(frames, stress)
    return {"energy": found.energy, "forces": found.forces, "stress": found.stress, "reasons": found.reasons}
