"""Disordered Li6PS5Cl with SevenNet-MF-0 labels at r2SCAN: dynamics at 300 to 1200 K; one group a trajectory.

A cell has four formula units. Each of its 24 pairs of Li sites has one Li, on either side; up to two of
the four Cl have changed places with S2-. The free atoms are there because one composition alone
determines no atomic reference energies.

References
----------
Structure: M. A. Kraft et al., J. Am. Chem. Soc. 139, 10909 (2017).
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.spacegroup import crystal

from retemper.systems.sevennet import LEVEL, free_atoms, label_all, relax, trajectory
from retemper.systems.structures import rng_of
from retemper.systems.xtb import Tally

__all__ = ["LEVEL", "free_atoms", "group", "groups"]

TEMPERATURES = (300.0, 600.0, 900.0, 1200.0)  # K
TRAJECTORIES = 12
FRAMES = 8  # a trajectory
LATTICE = 9.86  # A, measured
SCALE = (0.99, 1.04)  # of the lattice, uniform
SITES = {  # F-43m
    "P": (0.0, 0.0, 0.5),
    "Cl": (0.0, 0.0, 0.0),
    "S": (0.25, 0.25, 0.75),
    "Sb": (0.1193, -0.1193, 0.6193),  # S bound to P
    "Li": (0.3113, 0.0251, 0.6887),
}
NEIGHBOURS = 2.2  # A; Li nearer than this are avoided where they can be
SWEEPS = 200  # of the search for such an arrangement
RELAX_STEPS, EQUILIBRATE, STRIDE = 10, 25, 6
TIME_STEP = 4.0  # fs; no atom is lighter than Li


def groups() -> list[str]:
    """Names of the trajectories."""
    return [f"lpsc-{index:02d}" for index in range(TRAJECTORIES)]


def group(name: str, seed: int, tally: Tally) -> list[Atoms]:
    """The frames of one trajectory."""
    index = groups().index(name)
    rng = rng_of(name, seed)
    temperature = TEMPERATURES[index % len(TEMPERATURES)]
    start = relax(disordered(rng, swaps=index // len(TEMPERATURES)), RELAX_STEPS)
    snapshots = trajectory(
        start,
        rng,
        temperature=temperature,
        time_step=TIME_STEP,
        equilibrate=EQUILIBRATE,
        stride=STRIDE,
        frames=FRAMES,
    )
    for atoms in snapshots:
        atoms.wrap()
    return label_all([(atoms, f"{temperature:.0f}K") for atoms in snapshots], name, tally)


def disordered(rng: np.random.Generator, *, swaps: int) -> Atoms:
    """Li24P4S20Cl4 with half of the Li sites taken at random and `swaps` Cl in the places of S2-."""
    a = LATTICE * rng.uniform(*SCALE)
    parts = {
        name: crystal("S" if name == "Sb" else name, [site], spacegroup=216, cellpar=[a, a, a, 90, 90, 90])
        for name, site in SITES.items()
    }
    chlorine, sulfur = parts["Cl"].symbols, parts["S"].symbols
    chlorine[rng.choice(4, swaps, replace=False)] = "S"
    sulfur[rng.choice(4, swaps, replace=False)] = "Cl"
    parts["Cl"].symbols, parts["S"].symbols = chlorine, sulfur
    frame = parts["P"] + parts["Cl"] + parts["S"] + parts["Sb"]
    lithium = parts["Li"][half(parts["Li"], rng)]
    return Atoms((frame + lithium).symbols, positions=(frame + lithium).positions, cell=frame.cell, pbc=True)


def half(sites: Atoms, rng: np.random.Generator) -> np.ndarray:
    """Indices of one site of each pair; pairs are flipped at random while that leaves fewer close neighbours."""
    distances = sites.get_all_distances(mic=True) + 99.0 * np.eye(len(sites))
    partner = distances.argmin(axis=1)
    pairs = np.array([(i, j) for i, j in enumerate(partner) if i < j])
    picks = rng.integers(2, size=len(pairs))

    def close(choice: np.ndarray) -> int:
        members = pairs[np.arange(len(pairs)), choice]
        return int((distances[np.ix_(members, members)] < NEIGHBOURS).sum())

    fewest = close(picks)
    for k in rng.integers(len(pairs), size=SWEEPS):
        flipped = picks.copy()
        flipped[k] = 1 - flipped[k]
        if (number := close(flipped)) <= fewest:
            picks, fewest = flipped, number
    return pairs[np.arange(len(pairs)), picks]
