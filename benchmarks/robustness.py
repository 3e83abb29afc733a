"""The robustness suite against what a user would run: MACECalculator in float64 with ASE's algorithms.

Three parts, each side by side in one run, CPU time of one thread:

- dynamics: Langevin replicas of a droplet, against ASE's Langevin;
- search: relaxations of random cells with FIRE, against ASE's FIRE on a UnitCellFilter: the same steps;
- radial distributions: 1000 frames of 192 atoms, three pairs, against ASE's get_rdf.

    python -m benchmarks.robustness                  # as stated
    python -m benchmarks.robustness --scale 0.1      # a tenth of the work
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import molecule

from retemper.evaluation.robustness import suite
from retemper.evaluation.robustness.context import Context
from retemper.models import evaluators, model_file
from retemper.models.evaluators import Evaluator
from retemper.simulation.dynamics import trajectory
from retemper.simulation.radial_distribution import distribution, histograms
from retemper.simulation.random_structures import compositions, random_structures
from retemper.simulation.relaxation import relax

ELEMENTS = (1, 8, 11, 17)


def cpu(function: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what `function` gives."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def droplet(waters: int, seed: int = 0) -> Atoms:
    """NaCl and water molecules on a lattice of 3.1 A, each turned at random."""
    rng = np.random.default_rng(seed)
    sites = np.array(list(np.ndindex(3, 3, 3)), dtype=float) * 3.1
    atoms = Atoms("NaCl", sites[:2])
    for site in sites[2 : 2 + waters]:
        part = molecule("H2O")
        part.euler_rotate(*rng.uniform(0, 360, 3))
        part.translate(site)
        atoms += part
    return atoms


def mace(model: Path) -> Any:
    from mace.calculators import MACECalculator

    return MACECalculator(models=model_file.load(model), device="cpu", default_dtype="float64")


def dynamics(evaluator: Evaluator, model: Path, replicas: int, steps: int) -> None:
    from ase.md.langevin import Langevin
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

    starts = [droplet(14, seed) for seed in range(replicas)]
    how: dict[str, Any] = {"ensemble": "nvt", "timestep": 0.5, "temperature": 300.0}
    trajectory(evaluator, starts[0], steps=5, **how)
    ours, _ = cpu(lambda: [trajectory(evaluator, a, steps=steps, seed=k, **how) for k, a in enumerate(starts)])
    calculator, fewer = mace(model), max(10, steps // 5)

    def theirs() -> None:
        for atoms in starts:
            atoms.calc = calculator
            MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
            Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.01 / units.fs, fixcm=False).run(fewer)

    starts[0].calc = calculator
    starts[0].get_forces()
    taken, _ = cpu(theirs)
    each = [1e6 * t / (n * replicas * len(starts[0])) for t, n in ((ours, steps), (taken, fewer))]
    print(f"dynamics, {replicas} x {len(starts[0])} atoms: {each[0]:.0f} against {each[1]:.0f} us/atom/step: "
          f"{each[1] / each[0]:.1f} times", flush=True)  # fmt: skip


def search(evaluator: Evaluator, model: Path, number: int, steps: int) -> None:
    from ase.filters import UnitCellFilter
    from ase.optimize import FIRE

    starts = [random_structures(c, number, 0) for c in compositions(ELEMENTS, 5)]
    cells = [atoms for group in starts for atoms in group]
    relax(evaluator, cells, steps=1)
    ours, found = cpu(lambda: [r for group in starts for r in relax(evaluator, group, fmax=0.05, steps=steps)])
    calculator = mace(model)
    cells[0].calc = calculator
    cells[0].get_stress()
    sample = range(0, len(cells), 2)

    def theirs() -> list[tuple[int, float]]:
        results = []
        for k in sample:
            atoms = cells[k].copy()
            atoms.calc = calculator
            optimiser = FIRE(UnitCellFilter(atoms), logfile=None)
            optimiser.run(fmax=0.05, steps=steps)
            results.append((optimiser.nsteps, float(atoms.get_potential_energy())))
        return results

    taken, results = cpu(theirs)
    count, count_theirs = sum(r.steps + 1 for r in found), sum(n + 1 for n, _ in results)
    each = 1e3 * ours / count, 1e3 * taken / count_theirs
    size = np.mean([len(atoms) for atoms in cells])
    same = [abs(found[k].energy - e) / len(cells[k]) < 1e-3 for k, (_, e) in zip(sample, results, strict=True)]
    times = each[1] / each[0]
    print(
        f"search, {len(cells)} cells of {size:.0f} atoms: {each[0]:.2f} against {each[1]:.2f} ms a step: "
        f"{times:.1f} times"
    )
    print(f"  same energy to 1 meV/atom: {sum(same)} of {len(same)}", flush=True)


def radial(frames: int) -> None:
    from ase.geometry.rdf import get_rdf

    rng = np.random.default_rng(0)
    numbers = np.repeat([8, 1], [64, 128])
    side, reach, bins = 12.42, 6.2, 100
    positions = rng.random((frames, 192, 3)) * side
    cells = np.repeat(np.eye(3)[None] * side, frames, axis=0)
    pairs = [(8, 8), (8, 1), (1, 1)]
    histograms(positions[:1], cells[:1], [True] * 3, np.arange(2), np.arange(2), reach, bins)  # compiles

    def ours(n: int) -> list[np.ndarray]:
        made = []
        for a, b in pairs:
            one, two = np.flatnonzero(numbers == a), np.flatnonzero(numbers == b)
            counts = histograms(positions[:n], cells[:n], [True] * 3, one, two, reach, bins)
            made.append(distribution(counts, np.full(n, side**3), len(one), len(two), a == b, reach))
        return made

    taken, _ = cpu(lambda: ours(frames))
    few = max(2, frames // 50)
    images = [Atoms(numbers, p, cell=[side] * 3, pbc=True) for p in positions[:few]]
    slow, right = cpu(lambda: [get_rdf(images, reach, bins, elements=list(p), no_dists=True) for p in pairs])
    first = ours(few)
    off = max(np.abs(x - y).max() for x, y in zip(first, right, strict=True))
    ratio = slow / few / (taken / frames)
    print(f"radial distributions, {frames} x 192 atoms, 3 pairs: {taken:.2f} s; ASE {slow / few * frames:.0f} s "
          f"(from {few} frames): {ratio:.0f} times, equal to {off:.1e}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("foundations/mini.model"))
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    subject = evaluators.describe(str(options.model))
    here = Context(subject, ELEMENTS, frames=[droplet(6)])
    subject, decision = evaluators.fastest(subject, suite.referees(here), ELEMENTS, Path(".cache/robustness"))
    print(f"{options.model}: {decision}", flush=True)
    evaluator = subject.open()
    radial(max(50, round(1000 * options.scale)))
    dynamics(evaluator, options.model, 4, max(40, round(1000 * options.scale)))
    search(evaluator, options.model, max(2, round(8 * options.scale)), 100)


if __name__ == "__main__":
    main()
