"""Trajectories, and the stage dataset on frames that are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.data.frames import ENERGY, FORCES
from retemper.prepare import dataset as stage
from retemper.records.dataset import DatasetManifest


def dynamics(seed: int, steps: int, stride: int, temperature: float = 600.0) -> list[Atoms]:
    """Labelled frames of copper, 32 atoms by EMT, `stride` steps of 2 fs apart."""
    from ase import units
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    random = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=random)
    run = Langevin(atoms, 2 * units.fs, temperature_K=temperature, friction=0.01 / units.fs, rng=random)
    run.run(100)
    frames = []
    for _ in range(steps):
        run.run(stride)
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        frame.info[ENERGY], frame.arrays[FORCES] = float(atoms.get_potential_energy()), atoms.get_forces()
        frames.append(frame)
    return frames


def staged(root: Path, files: dict[str, list[Atoms]], **dataset: Any) -> DatasetManifest:
    """The manifest of the dataset stage on these files."""
    from ase.io import write

    (root / "foundations").mkdir(parents=True)
    entry = "{about: a, level_of_theory: x, licence: x, citation: x, elements: H C N O Na Cl Cu, file: none}"
    (root / "foundations/foundations.yaml").write_text(f"small: {entry}\n")
    for name, frames in files.items():
        write(root / name, frames, format="extxyz")
    settings = Settings.model_validate(
        {
            "system": "s",
            "foundation": "small",
            "strategies": ["naive"],
            "seeds": [1],
            "dataset": {"files": ["data.xyz"], "level_of_theory": "x", "test": 0.2, **dataset},
        }
    )
    return stage.run(Project(root, settings))
