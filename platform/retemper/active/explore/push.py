"""Dynamics under an artificial force between two atoms: bonds are pulled, other neighbours pushed together.

It crosses barriers that thermal motion of the same length does not. The constant force between the atoms is the one of
S. Maeda, K. Morokuma, J. Chem. Phys. 132, 241102 (2010), here in dynamics and between atoms instead of fragments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from pydantic import Field

from retemper.active.explored import Context, Explored, descend, generator, spread
from retemper.config.settings import Section
from retemper.data.geometry import neighbours
from retemper.data.labels import reject
from retemper.models.evaluators import Evaluated, Evaluator
from retemper.simulation import dynamics
from retemper.simulation.engine import Failure, Task
from retemper.simulation.stability import BOND

REACH = 2.5  # times the sum of covalent radii: farther atoms are no neighbours


class Options(Section):
    paths: int = Field(16, ge=1)  # each from another group of the data, as far as there are
    steps: int = Field(400, ge=10)  # of 0.5 fs, or 1 fs without hydrogen
    temperature: float = Field(300.0, gt=0)  # K
    forces: list[float] = Field([0.5, 1.0, 2.0], min_length=1)  # eV/A, in turn


def explore(context: Context, options: Options) -> Explored:
    """Frames up to the first with atoms on top of each other; the force's work may heat them."""
    rng = generator(context.seed, "push")
    tasks, names, starts, pairs = [], [], [], []
    stride = max(1, options.steps * options.paths // max(1, context.number))
    explored = Explored()
    for k, start in spread(context.starts, options.paths, context.seed):
        couple = pair(start, rng)
        if couple is None:
            explored.notes.append(f"push-{k:03d}: no two atoms of {start.get_chemical_formula()} are near each other")
            continue
        first, second, bonded = couple
        strength = options.forces[k % len(options.forces)]
        arguments = {
            "start": start,
            "first": first,
            "second": second,
            "force": -strength if bonded else strength,
            "steps": options.steps,
            "timestep": dynamics.usual_timestep(start),
            "temperature": options.temperature,
            "stride": stride,
            "seed": context.seed * 10_000 + k,
        }
        description = f"{start.symbols[first]}-{start.symbols[second]} {'pulled' if bonded else 'pushed'}"
        label = f"exploring under a force, {start.get_chemical_formula()}, {description}"
        tasks.append(Task(driven, context.subject, arguments, label, options.steps * len(start)))
        names.append(f"push-{k:03d}")
        starts.append(start)
        pairs.append(description)
    for name, run, start, description in zip(names, context.run(tasks), starts, pairs, strict=True):
        if isinstance(run, Failure):
            explored.notes.append(f"{name}: {run.reason}")
            continue
        for index in range(1, len(run.time)):  # the first is the start itself
            frame = dynamics.frame(run, index)
            candidate = descend(start, frame, "push", name, time_fs=frame.info["time_fs"], driven=description)
            if run.stopped and index == len(run.time) - 1:
                explored.unphysical.append(reject(candidate, run.stopped))
            elif not explored.add(candidate):
                break
    return explored


def pair(atoms: Atoms, rng: np.random.Generator) -> tuple[int, int, bool] | None:
    """Two neighbours and whether they are bonded, at random: every pair of elements, bonded or not, is as likely."""
    first, second, distance, _ = neighbours(atoms, REACH)
    use = first < second
    first, second, distance = first[use], second[use], distance[use]
    if not len(first):
        return None
    radii = covalent_radii[atoms.numbers]
    bonded = distance < BOND * (radii[first] + radii[second])
    kinds: dict[tuple[int, int, bool], list[int]] = {}
    for k, (i, j) in enumerate(zip(first, second, strict=True)):
        low, high = sorted((int(atoms.numbers[i]), int(atoms.numbers[j])))
        kinds.setdefault((low, high, bool(bonded[k])), []).append(k)
    kind = sorted(kinds)[rng.integers(len(kinds))]
    k = kinds[kind][rng.integers(len(kinds[kind]))]
    return int(first[k]), int(second[k]), bool(bonded[k])


def driven(
    evaluator: Evaluator, start: Atoms, *, first: int, second: int, force: float, **dynamic: Any
) -> dynamics.Trajectory:
    """NVT `dynamics.trajectory` with `force` (eV/A) on two atoms towards each other; negative pulls them apart."""

    def with_force(frames: Sequence[Atoms], stress: bool = False) -> Evaluated:
        evaluated = evaluator(frames, stress)
        for atoms, forces in zip(frames, evaluated.forces, strict=True):
            direction = atoms.get_distance(first, second, mic=True, vector=True)
            direction *= force / np.linalg.norm(direction)
            forces[first] += direction
            forces[second] -= direction
        return evaluated

    return dynamics.trajectory(with_force, start, ensemble="nvt", **dynamic)
