"""Energies, forces and stresses of many structures: retemper against MACECalculator, one at a time, in float64.

    python -m benchmarks.inference                                  # structures made here; the embedded foundation
    python -m benchmarks.inference molecules                        # through untrained twins of released foundations
    RETEMPER_DATA=... python -m benchmarks.inference liquids
    RETEMPER_DATA=... python -m benchmarks.inference crystals --backends torch auto    # of many sets of elements
    python -m benchmarks.inference generated --model my.model       # a model file (elements H O Na Cl)

CPU time of one thread. Extraction for symmetrix, and the comparison of the extraction with torch, happen once a model
and are given apart; the comparison on structures of the set happens in every call and is included.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from ase import Atoms
from ase.build import molecule

from retemper.core.files import project_root
from retemper.data.frames import read_frames
from retemper.models import mace, model_file, predict, symmetrix

ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
MINI = "foundations/mini.model"
ELEMENTS = [1, 3, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 20, 22, 29, 30, 32, 35, 53]
# Architectures of released foundations: channels, blocks, cut-off and radial functions; few elements, random weights.
TWINS = {
    "MP-0 small": {"hidden": "128x0e"},
    "MPA-0 medium": {"hidden": "128x0e + 128x1o", "density": True},
    "MP-0 medium": {"hidden": "128x0e + 128x1o"},
}
SETS = ("generated", "liquids", "crystals", "molecules")
Result = TypeVar("Result")


def untrained(path: Path, hidden: str, density: bool = False) -> Path:
    """Save a MACE with random weights whose forces are of the order of 1 eV/A."""
    import torch
    from mace import modules
    from e3nn import o3  # isort: skip

    kind = "Density" if density else ""
    block = modules.interaction_classes[f"RealAgnostic{kind}ResidualInteractionBlock"]
    first = modules.interaction_classes[f"RealAgnostic{kind}InteractionBlock" if density else block.__name__]
    with mace.default_dtype("float64"):
        torch.manual_seed(0)
        model = modules.ScaleShiftMACE(
            r_max=6.0,
            num_bessel=10,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=block,
            interaction_cls_first=first,
            num_interactions=2,
            num_elements=len(ELEMENTS),
            hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.linspace(-10.0, -1.0, len(ELEMENTS))[None],
            avg_num_neighbors=30.0,
            atomic_numbers=ELEMENTS,
            correlation=3,
            gate=torch.nn.functional.silu,
            pair_repulsion=density,
            distance_transform="Agnesi" if density else "None",
            atomic_inter_scale=[1.0],
            atomic_inter_shift=[0.0],
            heads=["Default"],
        )
        torch.save(model, path)
        forces = np.concatenate(predict.predict(path, structures(5), backend="torch").forces)
        model.scale_shift.scale /= float(np.sqrt((forces**2).mean()))
        torch.save(model, path)
    return path


def structures(number: int, seed: int = 0) -> list[Atoms]:
    """Na, Cl and 2 to 20 water molecules on a lattice of 3 A, each turned at random: 8 to 62 atoms."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(number):
        waters = int(rng.integers(2, 21))
        side = int(np.ceil((waters + 2) ** (1 / 3)))
        sites = [np.array(s, dtype=float) for s in np.ndindex(side, side, side)]
        atoms = Atoms()
        for k, site in enumerate(rng.permutation(len(sites))[: waters + 2]):
            part = Atoms("Na") if k == 0 else Atoms("Cl") if k == 1 else molecule("H2O")
            part.euler_rotate(*rng.uniform(0, 360, 3), center="COP")
            part.translate(3.1 * sites[site] + rng.normal(scale=0.1, size=3))
            atoms += part
        if i % 2:
            atoms.set_cell(np.eye(3) * 3.1 * side)
            atoms.pbc = True
        frames.append(atoms)
    return frames


def read(name: str, root: Path, number: int | None) -> list[Atoms]:
    """Structures of a set; the real ones lie in ``$RETEMPER_DATA/real``."""
    if name == "generated":
        return structures(number or 300)
    if name == "molecules":
        frames = [atoms for atoms in read_frames(root / "data/raw/molecules.extxyz.xz") if len(atoms) > 2]
        return frames[:: max(1, len(frames) // (number or 60))][: number or 60]
    real = Path(os.environ["RETEMPER_DATA"]) / "real"
    if name == "liquids":
        return read_frames(real / "water64_revPBE0-D3.extxyz")[: number or 60]
    frames = [atoms for atoms in read_frames(real / "mptrj_pbe_22el.extxyz") if set(atoms.numbers) <= set(ELEMENTS)]
    return frames[:number]


def one_at_a_time(model: Path, frames: list[Atoms]) -> tuple[list[float], list[np.ndarray]]:
    """Energies (eV) and forces (eV/A) by MACE's calculator, which computes the stress with them."""
    from mace.calculators import MACECalculator

    calculator = MACECalculator(models=model_file.load(model), device="cpu", default_dtype="float64")
    energies, forces = [], []
    with mace.default_dtype("float64"):  # in which MACE computes the repulsion of a pair, whatever the model's
        for frame in frames:
            atoms = frame.copy()
            atoms.calc = calculator
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
    return energies, forces


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds of CPU time, and what the function returned."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def compare(model: Path, frames: list[Atoms], backends: list[str]) -> None:
    """Print the ratios of the back ends."""
    warm = frames[:4]
    one_at_a_time(model, warm)
    predict.predict(model, warm, backend="torch")
    single, (energies, forces) = timed(lambda: one_at_a_time(model, frames))
    print(f"{len(frames)} structures, {sum(map(len, frames))} atoms; MACECalculator one at a time: {single:.1f} s CPU")
    for backend in backends:
        once, _ = timed(lambda backend=backend: predict.predict(model, frames, backend=backend))
        took, predicted = timed(lambda backend=backend: predict.predict(model, frames, backend=backend))
        force = max(np.abs(a - b).max() for a, b in zip(predicted.forces, forces, strict=True))
        energy = max(abs(a - b) / len(f) for a, b, f in zip(predicted.energy, energies, frames, strict=True))
        print(
            f"  {backend:10s} {took:6.1f} s by {predicted.backend}, {single / took:4.1f} times faster, off by at most "
            f"{force:.1e} eV/A and {energy:.1e} eV/atom; {once - took:.1f} s more at the first call",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", nargs="*", default=["generated"], help=f"of {', '.join(SETS)}")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--backends", nargs="+", default=["torch", "symmetrix"], choices=predict.BACKENDS)
    parser.add_argument("--number", type=int, help="structures of a set")
    options = parser.parse_args()
    root = project_root()
    tuned = all(name in os.environ for name in ALLOCATOR)
    print(f"allocator settings {'set' if tuned else 'not set'}; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}")
    with tempfile.TemporaryDirectory() as folder:
        symmetrix.CACHE = Path(folder) / "symmetrix"
        for name in options.sets:
            frames = read(name, root, options.number)
            if options.model or name != "molecules":
                model = options.model or root / MINI
                print(f"{name}, {model}")
                compare(model, frames, options.backends)
                continue
            for twin, architecture in TWINS.items():
                print(f"{name}, untrained twin of {twin}")
                model = untrained(Path(folder) / f"{twin}.model", **architecture)
                compare(model, frames, options.backends)


if __name__ == "__main__":
    main()
