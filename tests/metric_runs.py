"""Calculators with planted faults, and crystals to measure them on."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk

from retemper.data.frames import ENERGY, FORCES
from retemper.models import evaluators
from retemper.models.evaluators import Subject


def planted(**defect: float) -> Subject:
    options = ", ".join(f"{key}={value}" for key, value in defect.items())
    return evaluators.describe(f"ase:planted:Pairwise({options})")


def crystals() -> list[Atoms]:
    """Ordered AlCu cells near the minimum of the sound calculator, slightly moved."""
    frames = []
    for k in range(3):
        atoms = bulk("AlCu", "cesiumchloride", a=2.9).repeat((2, 2, 2 + k // 2))
        atoms.rattle(0.02, seed=k)
        frames.append(atoms)
    return frames


def labelled(calculator: Subject, noise: float = 0.0) -> list[Atoms]:
    frames = []
    rng = np.random.default_rng(0)
    for k, atoms in enumerate(crystals() * 4):
        atoms = atoms.copy()
        atoms.rattle(0.1, seed=50 + k)
        result = calculator.open()([atoms])
        atoms.arrays[FORCES] = result.forces[0] + rng.normal(0, noise, (len(atoms), 3))
        atoms.info |= {ENERGY: float(result.energy[0]), "config_type": ("even", "odd")[k % 2]}
        frames.append(atoms)
    return frames
