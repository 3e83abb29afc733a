"""X- + CH3Y with X, Y of F, Cl, Br, I at GFN2-xTB, charge -1: complexes in dynamics, and the reaction paths.

A group is a complex at one temperature, or a reaction path: along it the orders n of the two C-X bonds
add up to one, with r = r(1) - D ln n, and the hydrogens are relaxed; each point as it is and rattled.
The free atoms are neutral.

References
----------
The reaction: W. L. Hase, Science 266, 998 (1994).
Bond orders: L. Pauling, J. Am. Chem. Soc. 69, 542 (1947); their sum: H. S. Johnston, C. Parr,
J. Am. Chem. Soc. 85, 2544 (1963). D here is that of the elastic bands of F- + CH3F and Cl- + CH3Cl at GFN2-xTB.
"""

from __future__ import annotations

import itertools

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.optimize import FIRE

from retemper.systems.structures import rattle, rng_of
from retemper.systems.xtb import LEVEL, Tally, calculator, isolated_atoms, label_all, trajectory

__all__ = ["LEVEL", "free_atoms", "group", "groups"]

CHARGE = -1
BOND = {"F": 1.40, "Cl": 1.78, "Br": 1.94, "I": 2.14}  # A, C-X in CH3X
CONTACT = {"F": 2.6, "Cl": 3.1, "Br": 3.3, "I": 3.5}  # A, C to the halide in the complex
TEMPERATURES = (300.0, 600.0)  # K
FRAMES = 4  # of a complex at one temperature
ORDERS = 1 / (1 + np.exp(-np.linspace(-2.4, 2.4, 9)))  # of the bond that breaks, along a path
D = 0.63  # A
RELAX_STEPS = 30  # of the hydrogens
RATTLE = 0.05  # A, standard deviation

free_atoms = isolated_atoms


def groups() -> list[str]:
    """Complexes at each temperature, named by what attacks and what leaves, then paths."""
    pairs = itertools.product(BOND, BOND)
    complexes = [f"{x}-CH3{y}-{t:.0f}K" for (x, y), t in itertools.product(pairs, TEMPERATURES)]
    return complexes + [f"path-{x}-{y}" for x, y in itertools.combinations_with_replacement(BOND, 2)]


def group(name: str, seed: int, tally: Tally) -> list[Atoms]:
    """The frames of one complex or path."""
    rng = rng_of(name, seed)
    if name.startswith("path-"):
        _, incoming, leaving = name.split("-")
        points = path(incoming, leaving)
        half = len(points) // 2 + 1 if incoming == leaving else len(points)  # the other half is its mirror image
        frames = [(point, "path") for point in points[:half]]
        frames += [(rattle(point, rng, RATTLE), "rattled path") for point in points]
    else:
        incoming, methyl, temperature = name.split("-")
        start = approach(incoming, methyl.removeprefix("CH3"))
        kelvin = float(temperature.removesuffix("K"))
        snapshots = trajectory(start, rng, tally, temperature=kelvin, frames=FRAMES, equilibrate=100, charge=CHARGE)
        frames = [(atoms, "complex") for atoms in snapshots]
    return label_all(frames, name, tally, charge=CHARGE)


def figures(_: int) -> dict[str, list[Atoms]]:
    """Ends of Cl- + CH3Cl, for the barrier of the metric `observables`."""
    return {"path.extxyz": [approach("Cl", "Cl"), approach("Cl", "Cl", reacted=True)]}


def path(incoming: str, leaving: str) -> list[Atoms]:
    """Points of the path from ``leaving- + CH3incoming`` to ``incoming- + CH3leaving``."""
    points = []
    for order in ORDERS:
        near, far = BOND[leaving] - D * np.log(order), BOND[incoming] - D * np.log(1 - order)
        atoms = complex_of(leaving, incoming, near, far)
        atoms.set_constraint(FixAtoms([0, 1, 2]))
        atoms.calc = calculator(charge=CHARGE)
        FIRE(atoms, logfile=None).run(fmax=0.05, steps=RELAX_STEPS)
        points.append(Atoms(atoms.symbols, positions=atoms.positions))
    return points


def approach(incoming: str, leaving: str, *, reacted: bool = False) -> Atoms:
    """The complex of a halide with a methyl halide, on a line; or, `reacted`, the one after the exchange."""
    if reacted:
        return complex_of(leaving, incoming, CONTACT[leaving], BOND[incoming])
    return complex_of(leaving, incoming, BOND[leaving], CONTACT[incoming])


def complex_of(leaving: str, incoming: str, near: float, far: float) -> Atoms:
    """CH3 between `leaving` at the distance `near` and `incoming` at `far` (A), on a line.

    The hydrogens lean towards the farther one.
    """
    lean = 0.35 * np.clip((far - near) / 1.2, -1, 1)
    ring = [(1.02 * np.cos(a), 1.02 * np.sin(a), -lean) for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
    return Atoms(f"C{leaving}{incoming}H3", [(0, 0, 0), (0, 0, near), (0, 0, -far), *ring])
