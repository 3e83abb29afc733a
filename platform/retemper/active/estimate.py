"""What uncertainties work with and give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from ase import Atoms


@dataclass(frozen=True)
class Context:
    """The models of one strategy, and what they were trained on."""

    models: list[Path]  # one a seed, the one that explores first
    head: str
    device: str
    train: list[Atoms]  # labelled, without free atoms


@dataclass(frozen=True)
class Info:
    """What an uncertainty is, for people."""

    title: str
    models: int  # that it needs
    reference: str


class Estimator(Protocol):
    """How unsure the model is of the force on each atom: n times [n_atoms], any unit, larger is less sure."""

    def __call__(self, frames: Sequence[Atoms]) -> list[np.ndarray]: ...
