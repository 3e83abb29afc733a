"""Single points as a task."""

from __future__ import annotations

from collections.abc import Sequence

from ase import Atoms

from retemper.models.evaluators import Evaluated, Evaluator


def single_points(evaluator: Evaluator, frames: Sequence[Atoms], stress: bool = False) -> Evaluated:
    """Energies, forces and, if asked, stresses of `frames`; those that failed have a reason."""
    return evaluator(frames, stress)
