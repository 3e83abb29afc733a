"""Generate the pretraining structures and label them with SevenNet-0 (PBE level).

Run in the environment of ``requirements.txt``, one process per shard::

    python structures.py label --shard 0/2 --out labelled-0.extxyz
    python structures.py label --shard 1/2 --out labelled-1.extxyz
    python structures.py split labelled-0.extxyz labelled-1.extxyz --out .

Structures come in groups (a prototype with its strained copies, a molecule with
its conformers, a trajectory). A group has a random generator of its own, seeded
by its name, so a shard's output does not depend on the number of shards, and a
group never straddles the train/valid/test split.

Energies are eV, forces eV/A, stresses eV/A^3 (ASE sign). SevenNet-0: Park et al.,
J. Chem. Theory Comput. 20, 4857 (2024), trained on MPtrj (PBE and PBE+U).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread, write
from ase.optimize import FIRE

from families import ELEMENTS, closest, crystals, dimers, molecules, random_cells, seed_of
from relaxations import compounds, salts, searches
from trajectories import trajectories


def label_shard(shard: int, shards: int, wanted: list[str], out: Path) -> None:
    import torch
    from sevenn.calculator import SevenNetCalculator

    torch.set_num_threads(1)
    calculator = SevenNetCalculator("7net-0", device="cpu")
    rejected: dict[str, int] = defaultdict(int)

    def energy(atoms: Atoms) -> float:
        trial = atoms.copy()
        trial.calc = calculator
        return float(trial.get_potential_energy())

    def relaxed(atoms: Atoms, steps: int) -> Atoms:
        trial = atoms.copy()
        trial.calc = calculator
        FIRE(trial, logfile=None).run(fmax=0.05, steps=steps)
        trial.calc = None
        return trial

    def label(atoms: Atoms) -> Atoms | None:
        """Single point, or None when the structure is unphysical (counted in `rejected`)."""
        atoms = atoms.copy()
        atoms.wrap()
        atoms.positions = atoms.positions.round(5)
        if atoms.pbc.any():
            atoms.set_cell(atoms.cell.array.round(5))
        if len(atoms) > 1 and closest(atoms) < 0.45:
            rejected["too close"] += 1
            return None
        trial = atoms.copy()
        trial.calc = calculator
        energy, forces = float(trial.get_potential_energy()), trial.get_forces()
        if not np.isfinite(forces).all() or np.abs(forces).max() > 25:
            rejected["force above 25 eV/A"] += 1
            return None
        plain = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        plain.info["REF_energy"] = round(energy, 6)
        plain.arrays["REF_forces"] = forces.round(5)
        if atoms.pbc.any():
            plain.info["REF_stress"] = trial.get_stress(voigt=False).round(7)
        return plain

    def isolated() -> Iterator[tuple[str, str, Callable]]:
        for element in ELEMENTS:
            yield element, "IsolatedAtom", lambda r, e=element: iter([Atoms(e)])

    families = {
        "isolated": isolated(), "dimers": dimers(), "molecules": molecules(relaxed), "crystals": crystals(energy),
        "random": random_cells(), "trajectories": trajectories(calculator),
        "compounds": compounds(calculator, energy), "salts": salts(calculator, energy), "searches": searches(calculator, energy),
    }  # fmt: skip
    start, count = time.time(), 0
    temporary = out.with_suffix(".part")
    temporary.unlink(missing_ok=True)
    for index, (group, config_type, build) in enumerate(
        itertools.chain(*(families[name] for name in wanted or families))
    ):
        if index % shards != shard:
            continue
        for atoms in build(np.random.default_rng(seed_of(group))):
            labelled = label(atoms)
            if labelled is not None:
                labelled.info.update(
                    config_type=config_type, group=f"{config_type}:{group}"
                )  # never read as a bool or number
                write(temporary, labelled, format="extxyz", append=True)
                count += 1
        if index % 50 == shard:
            print(
                f"{index} {group}: {count} frames, {time.time() - start:.0f} s, rejected {dict(rejected)}", flush=True
            )
    temporary.rename(out)
    print(f"{count} frames in {out}, rejected {dict(rejected)}")


def split(inputs: list[Path], out: Path) -> None:
    """Write train/valid/test; whole groups, the same shares in every configuration type.

    SevenNet-0 gives absurd labels to cells far denser than its training set. Left out: more
    than 0.6 eV/A^3 (96 GPa) of stress, or more than 10 eV/atom from the free atoms.
    """
    frames = [atoms for path in inputs for atoms in iread(path, index=":", format="extxyz")]
    free = {str(a.symbols[0]): a.info["REF_energy"] for a in frames if a.info["config_type"] == "IsolatedAtom"}
    groups: dict[str, dict[str, list[Atoms]]] = defaultdict(lambda: defaultdict(list))
    left_out = 0
    for atoms in frames:
        binding = (atoms.info["REF_energy"] - sum(free[s] for s in atoms.symbols)) / len(atoms)
        if abs(binding) > 10 or np.abs(atoms.info.get("REF_stress", 0.0)).max() > 0.6:
            left_out += 1
            continue
        groups[atoms.info["config_type"]][atoms.info["group"]].append(atoms)
    print(f"{left_out} of {len(frames)} frames left out: outside the labeller's domain")
    sets: dict[str, list[Atoms]] = {"train": [], "valid": [], "test": []}
    for config_type in sorted(groups):
        names = sorted(groups[config_type])
        np.random.default_rng(seed_of(config_type)).shuffle(names)
        total = sum(len(groups[config_type][n]) for n in names)
        seen = 0
        for name in names:
            share = seen / total
            target = "train" if config_type == "IsolatedAtom" or share >= 0.15 else "test" if share < 0.1 else "valid"
            sets[target] += groups[config_type][name]
            seen += len(groups[config_type][name])
    for name, frames in sets.items():
        path = out / f"{name}.extxyz.xz"
        write(path, frames, format="extxyz")
        print(f"{path}: {len(frames)} frames, {sum(map(len, frames))} atoms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("label", help="generate and label one shard")
    one.add_argument("--shard", default="0/1", help="which of how many, as 0/2")
    one.add_argument(
        "--families",
        nargs="*",
        default=[],
        help="isolated dimers molecules crystals random trajectories compounds salts searches; default all",
    )
    one.add_argument("--out", type=Path, required=True)
    two = commands.add_parser("split", help="merge shards and split by group")
    two.add_argument("inputs", type=Path, nargs="+")
    two.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "label":
        shard, shards = map(int, args.shard.split("/"))
        label_shard(shard, shards, args.families, args.out)
    else:
        split(args.inputs, args.out)


if __name__ == "__main__":
    sys.exit(main())
