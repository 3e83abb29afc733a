"""Thermal displacements along the model's own normal modes around relaxed structures.

J. S. Smith, O. Isayev, A. E. Roitberg, Chem. Sci. 8, 3192 (2017), with amplitudes of classical statistics.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from pydantic import Field

from retemper.active.explored import Context, Explored, descend, spread
from retemper.config.settings import Section
from retemper.models.evaluators import Evaluator
from retemper.simulation import relaxation
from retemper.simulation.engine import Failure, Task

STEP = 0.01  # A, of central differences
SOFTEST = 0.5  # eV/A^2/u: softer modes, and those that lead downhill, are taken as this stiff


class Options(Section):
    starts: int = Field(4, ge=1)  # structures whose modes are computed: 6 n_atoms forces each
    temperatures: list[float] = Field([300.0, 600.0], min_length=1)  # K, in turn
    steps: int = Field(50, ge=0)  # of relaxation before


def explore(context: Context, options: Options) -> Explored:
    """`number` displaced copies, shared among the starts."""
    per_start = -(-context.number // options.starts)
    tasks, starts = [], []
    for k, start in spread(context.starts, options.starts, context.seed):
        arguments = {
            "start": start,
            "temperatures": [options.temperatures[i % len(options.temperatures)] for i in range(per_start)],
            "steps": options.steps,
            "seed": context.seed * 10_000 + k,
        }
        label = f"normal modes, {start.get_chemical_formula()}"
        tasks.append(Task(displaced, context.subject, arguments, label, 6 * len(start) ** 2))
        starts.append(start)
    explored = Explored()
    for k, (result, start) in enumerate(zip(context.run(tasks), starts, strict=True)):
        if isinstance(result, Failure):
            explored.notes.append(f"normal modes of {start.get_chemical_formula()}: {result.reason}")
            continue
        for i, positions in enumerate(result):
            atoms = start.copy()
            atoms.positions = positions
            explored.add(descend(start, atoms, "normal_modes", f"modes-{k:03d}-{i:03d}"))
    return explored


def displaced(
    evaluator: Evaluator, start: Atoms, *, temperatures: list[float], steps: int, seed: int
) -> list[np.ndarray]:
    """Positions [n_atoms, 3] (A), one for each of `temperatures` (K).

    Along a mode of mass-weighted stiffness k the amplitude is normal with variance k_B T / k.
    """
    (relaxed,) = relaxation.relax(evaluator, [start], fmax=0.05, steps=steps, cell=False)
    if relaxed.reason:
        raise ValueError(relaxed.reason)
    atoms = relaxed.atoms
    stiffness, modes = normal_modes(evaluator, atoms)
    keep = stiffness > 1e-3  # without translations and rotations
    keep |= stiffness < -1e-1
    width = 1 / np.sqrt(np.maximum(stiffness[keep], SOFTEST))
    rng = np.random.default_rng(seed)
    root = np.sqrt(atoms.get_masses())[:, None]
    displacements = []
    for temperature in temperatures:
        amplitude = np.sqrt(units.kB * temperature) * width * rng.normal(size=keep.sum())
        displacements.append(atoms.positions + (modes[:, keep] @ amplitude).reshape(-1, 3) / root)
    return displacements


def normal_modes(evaluator: Evaluator, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Mass-weighted stiffnesses [3n] (eV/A^2/u), and modes [3n, 3n] in columns, by central differences of forces."""
    n = len(atoms)
    copies = []
    for i in range(n):
        for axis in range(3):
            for sign in (1, -1):
                copy = atoms.copy()
                copy.positions[i, axis] += sign * STEP
                copies.append(copy)
    evaluated = evaluator(copies)
    reason = next((reason for reason in evaluated.reasons if reason), "")
    if reason:
        raise ValueError(reason)
    forces = np.array([f.ravel() for f in evaluated.forces]).reshape(3 * n, 2, 3 * n)
    hessian = -(forces[:, 0] - forces[:, 1]) / (2 * STEP)
    weight = np.repeat(1 / np.sqrt(atoms.get_masses()), 3)
    values, vectors = np.linalg.eigh((hessian + hessian.T) / 2 * weight[:, None] * weight)
    return values, vectors
