"""Peak memory and rate of the stages on large sets, against reading the file whole with ASE.

    python -m benchmarks.large                       # 20,000 and 200,000 frames; `train` of the latter: an hour
    python -m benchmarks.large --sizes 2000 20000 --steps make dataset e0s --folder /somewhere/with/space

The frames are rattled copies (0.02 to 0.06 A) of the small molecules among the embedded example data. Their labels
are a sum of Morse pairs: energies and forces belong together, but they are no method's; nothing is learnt from them.
Every step runs in a process of its own, whose peak resident memory is printed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.io import read

from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core import processes
from retemper.core.files import project_root
from retemper.data.frame_store import Store
from retemper.data.frames import read_frames, stream_frames, write_frames
from retemper.finetune.planning import plans
from retemper.models import library
from retemper.models.descriptors import mean_descriptors
from retemper.prepare import dataset, e0s

ATOMS = 9  # of the largest molecule taken
STEPS = ("make", "ase", "stream", "dataset", "e0s", "descriptors", "train")  # those after "dataset" need its sets
BATCH = 64


def morse(atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces [n_atoms, 3] (eV/A) of Morse pairs, 4 eV deep at the sum of covalent radii."""
    first, second = np.triu_indices(len(atoms), 1)
    vector = atoms.positions[second] - atoms.positions[first]
    distance = np.linalg.norm(vector, axis=1)
    radii = covalent_radii[atoms.numbers]
    rest = radii[first] + radii[second]
    grown = np.exp(-2.0 * (distance / rest - 1))
    slope = 4.0 * -2.0 / rest * (2 * grown**2 - 2 * grown)  # dE / dr
    pull = slope[:, None] * vector / distance[:, None]
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, first, pull)
    np.add.at(forces, second, -pull)
    return float(4.0 * (grown**2 - 2 * grown).sum()), forces


def rattled(number: int) -> Iterator[Atoms]:
    """Labelled copies; eight groups of copies of each molecule."""
    starts = [a for a in read_frames(project_root() / "data/raw/molecules.extxyz.xz") if 1 < len(a) <= ATOMS]
    random = np.random.default_rng(0)
    for k in range(number):
        start = starts[k % len(starts)]
        made = Atoms(start.numbers, start.positions)
        made.positions += random.normal(0, random.uniform(0.02, 0.06), made.positions.shape)
        made.info = {"group": f"{k % len(starts)}-{k // len(starts) % 8}"}
        made.info["REF_energy"], made.arrays["REF_forces"] = morse(made)
        yield made


def settings(file: Path) -> Settings:
    """One file, one epoch, from the disk whatever the size."""
    dataset = {"files": [str(file)], "level_of_theory": "Morse", "group": "group", "keys": {"stress": None}}
    content = {"system": "large", "foundation": "mini", "strategies": ["naive"], "seeds": [1], "dataset": dataset}
    content |= {
        "e0s": {"force": True, "max_error": 1000.0},
        "finetune": {"epochs": 1, "batch_size": BATCH, "disk_above": 0},
    }
    return Settings.model_validate(content)


def project(file: Path) -> Path:
    """A folder with strategies and foundations, in which the stages write ``runs``."""
    home = file.with_suffix("")
    home.mkdir(exist_ok=True)
    for name in ("strategies", "foundations"):
        if not (home / name).exists():
            (home / name).symlink_to(project_root() / name)
    return home


def stage(name: str, number: int, file: Path) -> int:
    """A stage of the pipeline on `number` frames; how many frames it went through."""
    home, given = project(file), settings(file)
    made = Project(home, given)
    if name == "dataset":
        return dataset.run(made).frames_read
    if name == "e0s":
        return sum(e0s.run(made).frames.values())
    if name == "descriptors":
        with Store(file.parent) as store:
            for frame in stream_frames(made.structures("train")):
                store.append(frame)
            return len(mean_descriptors(made.weights, store, head=made.foundation.head))
    library.import_mace()
    from retemper.finetune.mace.train import train

    (plan,) = plans(Project(home, given), "naive")
    train(plan, home / "training", lambda row: print(row, file=sys.stderr))
    return plan.target.n_train + plan.target.n_valid


def step(name: str, number: int, file: Path) -> None:
    """One step; prints seconds and peak memory."""
    start, went = time.perf_counter(), number
    if name == "make":
        write_frames(file, rattled(number))
    elif name == "ase":
        frames = read(file, index=":")
        assert len(frames) == number
    elif name == "stream":
        with Store(file.parent) as store:
            for frame in stream_frames(file):
                store.append(frame)
            assert len(store) == number
    else:
        went = stage(name, number, file)
    seconds = time.perf_counter() - start
    cpu = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {number:,} | {name} | {peak:.0f} | {seconds:.0f} | {cpu:.0f} | {went / cpu:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--folder", type=Path, help="for some 2 GB a million atoms; default: a temporary one")
    parser.add_argument("--one", nargs=2, metavar=("STEP", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        step(options.one[0], options.sizes[0], Path(options.one[1]))
        return
    processes.prepare()
    with tempfile.TemporaryDirectory(prefix="large-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(
            "| frames | step | peak memory, MiB | s | CPU s | frames/CPU s |\n" + "|---" * 6 + "|",
            flush=True,
        )
        for number in options.sizes:
            for name in options.steps:
                command = ["--sizes", str(number), "--one", name, str(folder / f"{number}.extxyz")]
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.large", *command], check=True, capture_output=True, text=True
                )
                print(done.stdout.strip().splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
