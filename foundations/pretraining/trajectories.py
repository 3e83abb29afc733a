"""Short molecular dynamics of clusters and liquids with the labeller itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import FIRE

from families import ELEMENTS, METALS, closest, radius


def packed(parts: list[Atoms], box: float, periodic: bool, rng: np.random.Generator) -> Atoms | None:
    """Molecules at random places and orientations in a cube of side `box` (A)."""
    from ase.geometry import get_distances

    total = Atoms(cell=[box] * 3, pbc=periodic)
    for part in parts:
        for _ in range(400):
            trial = part.copy()
            trial.euler_rotate(*(rng.uniform(0, 360, 3)), center="COM")
            trial.positions += rng.random(3) * box - trial.get_center_of_mass()
            if len(total) == 0:
                break
            _, d = get_distances(total.positions, trial.positions, cell=total.cell, pbc=total.pbc)
            r = covalent_radii[total.numbers][:, None] + covalent_radii[trial.numbers][None, :]
            if (d / (r + 0.5)).min() > 1.0:
                break
        else:
            return None
        total += trial
    if not periodic:
        total.cell[:] = 0
    return total


def trajectories(calculator) -> Iterator[tuple[str, str, Callable]]:
    """Short SevenNet-0 MD of clusters and liquids, every few steps a frame."""
    species = {
        "H2O": molecule("H2O"), "NH3": molecule("NH3"), "CH3OH": molecule("CH3OH"), "CH4": molecule("CH4"),
        "HF": Atoms("HF", positions=[(0, 0, 0), (0, 0, 0.93)]), "HCl": Atoms("HCl", positions=[(0, 0, 0), (0, 0, 1.3)]),
        "CO2": molecule("CO2"), "CH3Cl": molecule("CH3Cl"), "H2S": Atoms("SH2", positions=molecule("H2O").positions * 1.35),
        "CH3F": Atoms("CFH3", positions=molecule("CH3Cl").positions * 0.95),
    }  # fmt: skip
    for element in ELEMENTS:
        species.setdefault(element, Atoms(element))

    def build(counts: dict[str, int], density: float, periodic: bool, kelvin: float, frames: int, rng):
        parts = [species[name] for name, n in counts.items() for _ in range(n)]
        rng.shuffle(parts)
        size = sum(4 / 3 * np.pi * (radius(s) + 0.3) ** 3 for part in parts for s in part.symbols)
        box = (size / density) ** (1 / 3)
        for _ in range(25):
            atoms = packed(parts, box, periodic, rng)
            if atoms is not None:
                break
            box *= 1.03
        else:
            return
        atoms.calc = calculator
        FIRE(atoms, logfile=None).run(fmax=1.0, steps=10)
        MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=rng)
        light = 1 in atoms.numbers
        md = Langevin(
            atoms, (0.7 if light else 2.0) * units.fs, temperature_K=kelvin, friction=0.02 / units.fs, rng=rng
        )
        for _ in range(frames):
            md.run(4)
            if closest(atoms) < 0.4:
                return
            frame = atoms.copy()
            frame.calc = None
            yield frame

    water = [({"H2O": n}, False, 350.0) for n in range(2, 9)]
    ions = [({"H2O": n, **ion}, False, 400.0)
            for ion in ({"Na": 1, "Cl": 1}, {"K": 1, "Cl": 1}, {"Li": 1, "F": 1}, {"Na": 1, "Br": 1}, {"Mg": 1, "Cl": 2},
                        {"Ca": 1, "Cl": 2}, {"K": 1, "I": 1}, {"Na": 2, "Cl": 2}, {"HCl": 1}, {"HF": 1})
            for n in (4, 7)]  # fmt: skip
    ions += [({"H2O": n, "Na": 1, "Cl": 1}, False, 400.0) for n in (5, 8)]
    mixed = [({"CH3OH": 3}, False, 350.0), ({"NH3": 4}, False, 300.0), ({"HF": 4}, False, 300.0), ({"H2S": 3}, False, 300.0),
             ({"CH4": 3, "CO2": 2}, False, 300.0), ({"CH3Cl": 2, "H2O": 2}, False, 300.0), ({"CH3F": 2, "H2O": 2}, False, 300.0),
             ({"CH3OH": 2, "H2O": 3}, False, 350.0), ({"NH3": 2, "H2O": 3}, False, 350.0)]  # fmt: skip
    liquids = [({"H2O": n}, True, 350.0) for n in (6, 8, 8)]
    liquids += [({"H2O": 6, "Na": 1, "Cl": 1}, True, 400.0)] * 2
    liquids += [({"CH3OH": 4}, True, 350.0), ({"NH3": 6}, True, 300.0), ({"HF": 8}, True, 350.0)]
    liquids += [({a: 8, b: 8}, True, 1300.0) for a, b in
                (("Li", "Cl"), ("Na", "Cl"), ("K", "Br"), ("Li", "F"), ("Na", "I"), ("K", "F"), ("Mg", "O"), ("Ca", "S"), ("Cu", "Cl"))]  # fmt: skip
    liquids += [({"Zn": 5, "Cl": 10}, True, 1000.0), ({"Si": 5, "O": 10}, True, 2500.0), ({"Ti": 5, "O": 10}, True, 2500.0),
                ({"Ge": 5, "S": 10}, True, 1500.0), ({"Al": 6, "O": 9}, True, 2500.0), ({"B": 6, "O": 9}, True, 1800.0),
                ({"Li": 6, "P": 2, "S": 8}, True, 900.0), ({"Li": 6, "P": 1, "S": 5, "Cl": 1}, True, 900.0),
                ({"Na": 4, "Al": 2, "Cl": 10}, True, 900.0), ({"K": 4, "Ca": 2, "Br": 8}, True, 1200.0),
                ({"Mg": 4, "Si": 4, "O": 12}, True, 2500.0), ({"Li": 4, "Ti": 3, "O": 8}, True, 2000.0)]  # fmt: skip
    liquids += [({m: 12}, True, 1500.0) for m in METALS]
    liquids += [({a: 6, b: 6}, True, 1500.0) for a, b in (("Cu", "Zn"), ("Al", "Mg"), ("Li", "Si"), ("Ti", "Al"), ("Na", "K"), ("C", "N"), ("B", "N"), ("Si", "C"))]  # fmt: skip
    clusters = [({a: n, b: n}, False, 800.0) for a, b, n in
                (("Na", "Cl", 4), ("Na", "Cl", 6), ("Li", "F", 4), ("K", "Br", 4), ("Mg", "O", 4), ("Li", "I", 3), ("Cu", "S", 4), ("Ca", "O", 4))]  # fmt: skip
    clusters += [({m: 7}, False, 800.0) for m in METALS]
    for k, (counts, periodic, kelvin) in enumerate(water + ions + mixed + liquids + clusters):
        density = 0.62 if periodic else 0.35
        tag = "liquid" if periodic else "cluster"
        name = "".join(f"{s}{n}" for s, n in counts.items())
        yield (f"{tag}-{name}-{k}", tag, lambda r, c=counts, d=density, p=periodic, t=kelvin: build(c, d, p, t, 8, r))
