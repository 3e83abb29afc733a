"""Energies, forces and stresses of many structures: retemper against MACECalculator, one at a time, in float64.

Structures of 8 to 64 atoms, molecules of water around Na and Cl, every second one periodic.
CPU time of one thread. Extraction for symmetrix happens once a model and is given apart;
the comparison with torch on 20 structures happens on every set and is included.

    python benchmarks/inference.py                                 # two untrained architectures
    python benchmarks/inference.py --model foundations/mini.model  # a model file (elements H O Na Cl)
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule

from retemper.models import mace, model_file, predict, symmetrix

ALLOCATOR = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
ELEMENTS = [1, 3, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 20, 22, 29, 30, 32, 35, 53]
# The paper's foundations share l_max 3 and correlation 3; the embedded miniature is smaller in both.
ARCHITECTURES = {
    "32x0e+32x1o, l 3, correlation 3, 5.0 A": {"hidden": "32x0e + 32x1o", "l": 3, "correlation": 3, "cutoff": 5.0},
    "32x0e, l 2, correlation 2, 4.5 A": {"hidden": "32x0e", "l": 2, "correlation": 2, "cutoff": 4.5},
}


def untrained(path: Path, hidden: str, l: int, correlation: int, cutoff: float) -> Path:  # noqa: E741
    """Save a MACE with random weights whose forces are of the order of 1 eV/A."""
    import torch
    from mace import modules
    from e3nn import o3  # isort: skip

    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    with mace.default_dtype("float64"):
        torch.manual_seed(0)
        model = modules.ScaleShiftMACE(
            r_max=cutoff,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=l,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=2,
            num_elements=len(ELEMENTS),
            hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.linspace(-10.0, -1.0, len(ELEMENTS))[None],
            avg_num_neighbors=15.0,
            atomic_numbers=ELEMENTS,
            correlation=correlation,
            gate=torch.nn.functional.silu,
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


def one_at_a_time(model: Path, frames: list[Atoms]) -> tuple[list[float], list[np.ndarray]]:
    from mace.calculators import MACECalculator

    calculator = MACECalculator(models=model_file.load(model), device="cpu", default_dtype="float64")
    energies, forces = [], []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
    return energies, forces


def timed(function: Any, *arguments: Any, **options: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = function(*arguments, **options)
    return time.process_time() - start, result


def compare(model: Path, number: int) -> None:
    frames = structures(number)
    warm = structures(4, seed=1)
    one_at_a_time(model, warm)
    predict.predict(model, warm, backend="torch")
    before, _ = timed(predict.predict, model, warm, backend="symmetrix")  # extraction, where it is possible
    single, (energies, forces) = timed(one_at_a_time, model, frames)
    print(f"{number} structures, {sum(map(len, frames))} atoms; MACECalculator one at a time: {single:.1f} s CPU")
    for backend in ("torch", "symmetrix"):
        took, predicted = timed(predict.predict, model, frames, backend=backend)
        if predicted.backend != backend:
            print(f"  {backend:10s} does not support this architecture")
            continue
        force = max(np.abs(a - b).max() for a, b in zip(predicted.forces, forces, strict=True))
        energy = max(abs(a - b) / len(f) for a, b, f in zip(predicted.energy, energies, frames, strict=True))
        extra = f"; extraction once a model: {before:.1f} s" if backend == "symmetrix" else ""
        print(
            f"  {backend:10s} {took:6.1f} s, {single / took:4.1f} times faster, "
            f"off by at most {force:.1e} eV/A and {energy:.1e} eV/atom{extra}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--number", type=int, default=300)
    options = parser.parse_args()
    tuned = all(name in os.environ for name in ALLOCATOR)
    print(f"allocator settings {'set' if tuned else 'not set'}; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}")
    with tempfile.TemporaryDirectory() as folder:
        symmetrix.CACHE = Path(folder) / "symmetrix"
        if options.model:
            print(options.model)
            compare(options.model, options.number)
            return
        for k, (name, architecture) in enumerate(ARCHITECTURES.items()):
            print(name)
            compare(untrained(Path(folder) / f"{k}.model", **architecture), options.number)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
