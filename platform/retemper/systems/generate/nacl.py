"""Droplets NaCl(H2O)n, n = 8 to 14, neutral: short dynamics at GFN2-xTB, one group a trajectory.

The free atoms are there because NaCl(H2O)n alone cannot determine its atomic reference energies:
Na and Cl, and H and O, occur only in fixed ratios.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule

from retemper.systems.structures import rng_of
from retemper.systems.xtb import LEVEL, Tally, isolated_atoms, label_all, trajectory

__all__ = ["LEVEL", "free_atoms", "group", "groups"]

SIZES = range(8, 15)  # water molecules
TRAJECTORIES = 24
TEMPERATURES = (300.0, 350.0, 400.0, 450.0)  # K
FRAMES = 10  # a trajectory
CONTACT = 3.3  # A; Na and Cl nearer than this are a contact pair

free_atoms = isolated_atoms


def groups() -> list[str]:
    """Names of the trajectories."""
    return [f"nacl-{index:02d}" for index in range(TRAJECTORIES)]


def group(name: str, seed: int, tally: Tally) -> list[Atoms]:
    """The frames of one trajectory."""
    index = groups().index(name)
    rng = rng_of(name, seed)
    size = SIZES[index % len(SIZES)]
    temperature = TEMPERATURES[index % len(TEMPERATURES)]
    start = droplet(size, rng, separated=bool(index // len(TEMPERATURES) % 2))
    path = trajectory(start, rng, tally, temperature=temperature, frames=FRAMES, equilibrate=150)
    pairs = ("contact-pair" if atoms.get_distance(0, 1) < CONTACT else "separated-pair" for atoms in path)
    return label_all(zip(path, pairs, strict=True), name, tally)


def droplet(n_waters: int, rng: np.random.Generator, *, separated: bool) -> Atoms:
    """Random start NaCl(H2O)n: Na and Cl in the middle, waters packed around them.

    The ions are in contact (2.5 to 3.5 A) or `separated` (4.5 to 6 A), with water between them.
    Waters go one by one to the random free place nearest the line from Na to Cl; no two oxygens
    come closer than 2.6 A, no oxygen closer than 2.3 A to Na or 3.0 A to Cl.
    """
    distance = rng.uniform(4.5, 6.0) if separated else rng.uniform(2.5, 3.5)
    atoms = Atoms("NaCl", positions=[[-distance / 2, 0, 0], [distance / 2, 0, 0]])
    water = molecule("H2O")
    water.positions -= water.positions[0]
    oxygens = np.empty((0, 3))
    while len(oxygens) < n_waters:
        places = rng.uniform(-8.0, 8.0, size=(4000, 3))
        from_ions = np.linalg.norm(places[:, None] - atoms.positions[:2], axis=2)
        free = (from_ions[:, 0] > 2.3) & (from_ions[:, 1] > 3.0)
        if len(oxygens):
            free &= np.linalg.norm(places[:, None] - oxygens, axis=2).min(axis=1) > 2.6
        beyond = np.clip(np.abs(places[free, 0]) - distance / 2, 0.0, None)
        place = places[free][np.hypot(beyond, np.linalg.norm(places[free, 1:], axis=1)).argmin()]
        copy = water.copy()
        copy.euler_rotate(*rng.uniform(0.0, 360.0, size=3), center=(0.0, 0.0, 0.0))
        copy.translate(place)
        atoms += copy
        oxygens = np.vstack([oxygens, place])
    return atoms
