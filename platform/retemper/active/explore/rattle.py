"""Labelled structures with random displacements and, where there is a cell, random strains."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from retemper.active.explored import Context, Explored, descend, generator, spread
from retemper.config.settings import Section


class Options(Section):
    amplitudes: list[float] = Field([0.03, 0.06, 0.1], min_length=1)  # A, standard deviations of displacements, in turn
    strain: float = Field(0.03, ge=0)  # standard deviation of the strain's components


def explore(context: Context, options: Options) -> Explored:
    """Copies of the starts in turn, each with the next amplitude; every copy is a path of its own."""
    rng = generator(context.seed, "rattle")
    explored = Explored()
    for k, start in spread(context.starts, context.number, context.seed):
        amplitude = options.amplitudes[k % len(options.amplitudes)]
        atoms = start.copy()
        if atoms.pbc.all():
            strain = rng.normal(0, options.strain, (3, 3))
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.positions += rng.normal(0, amplitude, atoms.positions.shape)
        explored.add(descend(start, atoms, "rattle", f"rattle-{k:04d}", amplitude=amplitude))
    return explored
