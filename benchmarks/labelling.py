"""Labels an hour on several cores against one ASE loop: the same structures, the same oracle.

    python -m benchmarks.labelling                  # 200 structures, two workers, GFN2-xTB; needs idle cores
    python -m benchmarks.labelling --waters 30      # larger structures: 0.2 s a label instead of 0.02

Structures are rattled frames of the larger embedded NaCl(aq) droplets (38 to 44 atoms), or droplets of NaCl and
`--waters` water molecules. The loop is what one would
write by hand: a calculator an atoms object, energy and forces. Starting the processes counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.active import label
from retemper.config.settings import Acquire, Plugin
from retemper.core import processes
from retemper.core.files import project_root
from retemper.data.frames import ENERGY, read_frames
from retemper.systems.generate.nacl import droplet
from retemper.systems.xtb import calculator

LEAST = 38  # atoms


def structures(number: int, waters: int | None) -> list[Atoms]:
    """Rattled copies that no label exists of."""
    rng = np.random.default_rng(0)
    if waters is None:
        frames = [a for a in read_frames(project_root() / "data/raw/nacl.extxyz.xz") if len(a) >= LEAST]
    else:
        frames = [droplet(waters, rng, separated=False) for _ in range(10)]
    made = []
    for k in range(number):
        atoms = Atoms(frames[k % len(frames)].numbers, frames[k % len(frames)].positions)
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
        atoms.positions = atoms.positions.round(8)
        made.append(atoms)
    return made


def loop(frames: list[Atoms]) -> list[float]:
    """Energies, one after the other."""
    energies = []
    for atoms in frames:
        atoms.calc = calculator()
        energies.append(float(atoms.get_potential_energy()))
        atoms.get_forces()
    return energies


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labelling")
    parser.add_argument("--structures", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--waters", type=int, help="of a droplet; default: the embedded ones")
    parser.add_argument("--ray", action="store_true", help="on Ray's workers")
    options = parser.parse_args()
    processes.prepare()
    frames = structures(options.structures, options.waters)
    start = time.perf_counter()
    energies = loop([atoms.copy() for atoms in frames])
    single = time.perf_counter() - start
    print(f"one ASE loop: {single:.1f} s, {3600 * len(frames) / single:.0f} labels an hour", flush=True)
    own = Acquire(oracle=Plugin(name="xtb"), workers=options.workers, ray=options.ray)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        labelled, failed = label.label_all(frames, own, Path(folder))
        several = time.perf_counter() - start
    print(f"{options.workers} workers: {several:.1f} s, {3600 * len(frames) / several:.0f} labels an hour")
    worst = max(abs(a.info[ENERGY] - e) for a, e in zip(labelled, energies, strict=True))
    print(f"{len(failed)} failed; largest difference of an energy: {worst:.1e} eV")
    print(f"ratio: {single / several:.2f}")


if __name__ == "__main__":
    main()
