"""Clusters at a level of theory that differs from the foundation's by a known shift."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.data.frames import ENERGY
from retemper.models import predict

SHIFT = {1: -3.0, 6: -11.0, 8: 7.5, 11: 0.25, 17: -40.0}  # eV; the new level minus the foundation's


def cluster(formula: str, rng: np.random.Generator) -> Atoms:
    """Atoms of `formula` on a loosely filled random grid; distances are of no importance here."""
    atoms = Atoms(formula)
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), axis=-1).reshape(-1, 3)
    atoms.positions = 1.6 * rng.permutation(grid)[: len(atoms)] + rng.normal(0, 0.1, (len(atoms), 3))
    return atoms


def labelled(model: Path, formulas: list[str], noise: float = 0.0) -> list[Atoms]:
    """Clusters whose labels are the model's energies plus SHIFT per atom (plus noise, eV)."""
    rng = np.random.default_rng(5)
    frames = [cluster(formula, rng) for formula in formulas]
    energies = predict.predict(model, frames, backend="torch").energy
    for frame, energy in zip(frames, energies, strict=True):
        frame.info[ENERGY] = float(energy) + sum(SHIFT[int(z)] for z in frame.numbers) + rng.normal(0, 1) * noise
    return frames


def free_atoms(energies: dict[str, float]) -> list[Atoms]:
    frames = [Atoms(symbol, positions=[[0, 0, 0]]) for symbol in energies]
    for frame, energy in zip(frames, energies.values(), strict=True):
        frame.info.update({ENERGY: energy, "config_type": "IsolatedAtom"})
    return frames
