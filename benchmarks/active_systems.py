"""The two systems of `benchmarks.active`: the first labels, and tests like them and away from them. GFN2-xTB.

``sn2``: CH3X + Y- with X, Y of F and Cl, charge -1 (the reaction of W. L. Hase, Science 266, 998 (1994)).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.active.explore import push
from retemper.active.explored import Context
from retemper.core.files import project_root
from retemper.data.frames import is_isolated_atom, read_frames, write_frames
from retemper.models import evaluators
from retemper.simulation import engine
from retemper.systems import xtb
from retemper.systems.generate import sn2
from retemper.systems.generate.nacl import droplet
from retemper.systems.structures import rattle

SYSTEMS = ("nacl", "sn2")
FINAL = {"nacl": 700.0, "sn2": 1200.0}  # K at the end of exploring ramps
PAIRS = [("F", "F"), ("F", "Cl"), ("Cl", "F"), ("Cl", "Cl")]  # X, Y
VALID = [1, 4, 6, 9, 11, 14]  # of 16 structures in the order of their trajectories
PARTS = ("start", "valid", "inside", "outside", "isolated")


def sets(system: str, seed: int, folder: Path) -> dict[str, list[Atoms]]:
    """start (10 labels), valid (6), inside (40), outside (40), isolated; made once, then read."""
    place = folder / f"{system}-{seed}"
    if not all((place / f"{name}.extxyz").is_file() for name in PARTS):
        made = (_nacl if system == "nacl" else _sn2)(seed)
        for name in PARTS:
            write_frames(place / f"{name}.extxyz", made[name])
    return {name: read_frames(place / f"{name}.extxyz") for name in PARTS}


def _parted(near: list[Atoms], far: list[Atoms], symbols: list[str], seed: int) -> dict[str, list[Atoms]]:
    """`near` by trajectories: four for start and valid, of every kind there is, the rest inside; `far` is outside.

    Exploration begins at labelled structures, so a kind (the group's name without its number) that is missing at the
    start could never be found, whatever is chosen.
    """
    rng = np.random.default_rng(seed)
    names = sorted({str(atoms.info["group"]) for atoms in near})
    kinds = sorted({name.rpartition("-")[0] for name in names})
    own: list[str] = []
    for kind in kinds:
        of_kind = [name for name in names if name.rpartition("-")[0] == kind]
        own += [of_kind[k] for k in rng.permutation(len(of_kind))[: max(1, 4 // len(kinds))]]
    first = [atoms for name in own for atoms in near if atoms.info["group"] == name]
    chosen = np.linspace(0, len(first) - 1, 16).astype(int)
    rest = [atoms for atoms in near if atoms.info["group"] not in own]
    return {
        "start": [first[k] for k in np.delete(chosen, VALID)],
        "valid": [first[k] for k in chosen[VALID]],
        "inside": [rest[k] for k in np.unique(np.linspace(0, len(rest) - 1, 40).astype(int))],
        "outside": far[:40],
        "isolated": xtb.isolated_atoms(symbols),
    }


def _nacl(seed: int) -> dict[str, list[Atoms]]:
    """Near: the embedded droplets at 300 and 350 K. Far: hot ones of more water, and such as a force has driven."""
    frames = [a for a in read_frames(project_root() / "data/raw/nacl.extxyz.xz") if not is_isolated_atom(a)]
    near = [a for a in frames if int(str(a.info["group"]).rpartition("-")[2]) % 4 < 2]
    rng = np.random.default_rng(1000)  # the test is the same for every seed
    tally = xtb.Tally()
    far = []
    for k, waters in enumerate((14, 16)):
        start = droplet(waters, rng, separated=bool(k))
        path = xtb.trajectory(start, rng, tally, temperature=700.0, frames=20, equilibrate=150)
        far += xtb.label_all([(atoms, "hot") for atoms in path[::2]], f"hot-{k}", tally)
    first = {str(atoms.info["group"]): atoms for atoms in reversed(near)}
    driven = _driven([first[name] for name in sorted(first)], 20)
    far += xtb.label_all([(atoms, "driven") for atoms in driven], "driven", tally)
    return _parted(near, far, ["H", "O", "Na", "Cl"], seed)


def _driven(starts: list[Atoms], number: int) -> list[Atoms]:
    """What dynamics under a force between two atoms reaches from `starts`, at GFN2-xTB itself."""
    calculator = evaluators.describe("ase:tblite.ase:TBLite(method='GFN2-xTB', verbosity=0)")
    run = lambda tasks: [engine.compute(task) for task in tasks]  # noqa: E731
    context = Context(calculator, starts, (1, 8, 11, 17), number, 1000, run)
    return push.explore(context, push.Options(paths=max(2, number // 2), steps=200)).frames


def _sn2(seed: int) -> dict[str, list[Atoms]]:
    """Near: complexes in dynamics at 300 K. Far: the same at 1000 K, and the path from one to the other, rattled."""
    rng = np.random.default_rng(1000)
    tally = xtb.Tally()
    near, far = [], []
    for leaving, incoming in PAIRS:
        start = sn2.approach(incoming, leaving)
        for k, temperature in enumerate((300.0, 300.0, 1000.0)):
            path = xtb.trajectory(
                start, rng, tally, temperature=temperature, frames=8, equilibrate=50, charge=sn2.CHARGE
            )
            hot = temperature > 300.0
            group = f"hot-{leaving}-{incoming}" if hot else f"{leaving}-{incoming}-{k}"
            frames = [(atoms, "hot" if hot else "complex") for atoms in path]
            (far if hot else near).extend(xtb.label_all(frames, group, tally, charge=sn2.CHARGE))
        points = [(rattle(point, rng, sn2.RATTLE), "path") for point in sn2.path(incoming, leaving)]
        far += xtb.label_all(points, f"path-{leaving}-{incoming}", tally, charge=sn2.CHARGE)
    far = [far[k] for k in np.random.default_rng(0).permutation(len(far))]
    return _parted(near, far, ["C", "H", "F", "Cl"], seed)
