"""The two systems of `benchmarks.active`: the first labels, and tests like them and away from them. GFN2-xTB.

``sn2``: CH3X + Y- with X, Y of F and Cl, charge -1 (the reaction of W. L. Hase, Science 266, 998 (1994)).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import FIRE

from retemper import xtb
from retemper.active.label import put
from retemper.files import project_root
from retemper.frames import is_isolated_atom, read_frames, write_frames
from retemper.systems.generate.nacl import droplet

SYSTEMS = ("nacl", "sn2")
FINAL = {"nacl": 700.0, "sn2": 1200.0}  # K at the end of exploring ramps
PAIRS = [("F", "F"), ("F", "Cl"), ("Cl", "F"), ("Cl", "Cl")]  # X, Y
PARTS = ("start", "valid", "inside", "outside", "isolated")


def sets(system: str, seed: int, folder: Path, small: bool = False) -> dict[str, list[Atoms]]:
    """start (10 labels), valid (6), inside (40), outside (40), isolated; made once, then read."""
    place = folder / f"{system}-{seed}"
    if not all((place / f"{name}.extxyz").is_file() for name in PARTS):
        made = (_nacl if system == "nacl" else _sn2)(seed, small)
        for name in PARTS:
            write_frames(place / f"{name}.extxyz", made[name])
    return {name: read_frames(place / f"{name}.extxyz") for name in PARTS}


def _parted(near: list[Atoms], far: list[Atoms], symbols: list[str], seed: int) -> dict[str, list[Atoms]]:
    """`near` by groups into start and valid (two groups), the rest inside; `far` is outside."""
    rng = np.random.default_rng(seed)
    names = sorted({str(atoms.info["group"]) for atoms in near})
    order = [names[k] for k in rng.permutation(len(names))]
    by = {name: [atoms for atoms in near if atoms.info["group"] == name] for name in order}
    first = [atoms for name in order[:2] for atoms in by[name]]
    second = by[order[2]]
    return {
        "start": [first[k] for k in np.linspace(0, len(first) - 1, 10).astype(int)],
        "valid": second[:6],
        "inside": [atoms for name in order[3:] for atoms in by[name]][:40],
        "outside": far[:40],
        "isolated": xtb.isolated_atoms(symbols),
    }


def _nacl(seed: int, small: bool) -> dict[str, list[Atoms]]:
    """Near: the embedded droplets at 300 and 350 K. Far: hot ones, of more water."""
    frames = [a for a in read_frames(project_root() / "data/raw/nacl.extxyz.xz") if not is_isolated_atom(a)]
    near = [a for a in frames if int(str(a.info["group"]).rpartition("-")[2]) % 4 < 2]
    rng = np.random.default_rng(1000)  # the test is the same for every seed
    tally = xtb.Tally()
    far = []
    for k, waters in enumerate((14, 16)[: 1 if small else 2]):
        start = droplet(waters, rng, separated=bool(k))
        path = xtb.trajectory(start, rng, tally, temperature=700.0, frames=20, equilibrate=150)
        far += xtb.label_all([(atoms, "hot") for atoms in path], f"hot-{k}", tally)
    return _parted(near, far, ["H", "O", "Na", "Cl"], seed)


def _labelled(atoms: Atoms, group: str, config_type: str) -> Atoms:
    made = Atoms(atoms.symbols, atoms.positions.round(8))
    work = made.copy()
    work.calc = xtb.calculator(1, charge=-1)
    put(made, work.get_potential_energy(), work.get_forces(), None)
    made.info |= {"charge": -1, "group": group, "config_type": config_type}
    return made


def complex_of(leaving: str, incoming: str, near: float, far: float) -> Atoms:
    """CH3 between X at `near` and Y at `far` (A), on a line; the hydrogens lean towards the farther one."""
    lean = 0.35 * np.clip((far - near) / 1.2, -1, 1)
    ring = [(1.02 * np.cos(a), 1.02 * np.sin(a), -lean) for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
    return Atoms(f"C{leaving}{incoming}H3", [(0, 0, 0), (0, 0, near), (0, 0, -far), *ring])


def _sn2(seed: int, small: bool) -> dict[str, list[Atoms]]:
    """Near: complexes in dynamics at 300 K. Far: the same at 1000 K, and the path from one to the other, rattled."""
    rng = np.random.default_rng(1000)
    near, far = [], []
    for leaving, incoming in PAIRS:
        for temperature in (300.0, 1000.0) if small else (300.0, 300.0, 1000.0):
            atoms = complex_of(leaving, incoming, 1.45 if leaving == "F" else 1.82, 2.7 if incoming == "F" else 3.2)
            atoms.calc = xtb.calculator(1, charge=-1)
            FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=0.3, steps=50)
            MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
            friction = 0.02 / units.fs
            dynamics = Langevin(
                atoms, 0.5 * units.fs, temperature_K=temperature, friction=friction, rng=rng, fixcm=False
            )
            dynamics.run(100)
            for _ in range(8):
                dynamics.run(40)
                if temperature > 300.0:
                    far.append(_labelled(atoms, f"hot-{leaving}-{incoming}", "hot"))
                else:
                    near.append(_labelled(atoms, f"{leaving}-{incoming}-{len(near) // 8}", "complex"))
        for s in np.linspace(-1.0, 1.0, 8):
            bond = {"F": 1.40, "Cl": 1.80}
            ends = [bond[symbol] + 0.35 + 0.75 * max(0.0, d) for symbol, d in ((leaving, s), (incoming, -s))]
            atoms = complex_of(leaving, incoming, *ends)
            atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
            far.append(_labelled(atoms, f"path-{leaving}-{incoming}", "path"))
    far = [far[k] for k in np.random.default_rng(0).permutation(len(far))]
    mild = [a for a in far if np.linalg.norm(a.arrays["REF_forces"], axis=1).max() < xtb.MAX_FORCE]
    return _parted(near, mild, ["C", "H", "F", "Cl"], seed)
