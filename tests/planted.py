"""Calculators with a known answer: sound, or with one planted defect. Opened by name: ``ase:planted:Pairwise(...)``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import covalent_radii
from ase.stress import full_3x3_to_voigt_6_stress
from matscipy.neighbours import neighbour_list

CUTOFF = 6.0  # A


class Pairwise(Calculator):
    """Morse pairs at the sum of covalent radii, shifted and smooth at the cut-off; and, if asked, a defect.

    Parameters
    ----------
    hole
        Depth (eV) of an attraction below 0.75 times the sum of covalent radii.
    swirl
        eV/A^2: force around the z axis, which no energy has.
    field
        eV/A: energy that falls along x, whatever the orientation.
    crowd
        eV: energy of an atom falls by this times the square of its neighbours beyond 8 within 1.3 radii.
    limit
        Raise when two atoms are closer than this (A).
    single
        Give numbers in single precision.
    offset
        eV: energy of a free atom.
    """

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(
        self,
        depth: float = 0.4,
        hole: float = 0.0,
        swirl: float = 0.0,
        field: float = 0.0,
        crowd: float = 0.0,
        limit: float = 0.0,
        single: float = 0.0,
        offset: float = 0.0,
    ):
        super().__init__()
        self.single, self.offset = single, offset
        self.depth, self.hole, self.swirl, self.field, self.crowd, self.limit = depth, hole, swirl, field, crowd, limit

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        cell, origin = atoms.cell.array, np.zeros(3)
        if not atoms.pbc.any():
            origin = atoms.positions.min(axis=0) - CUTOFF
            cell = np.diag(np.ptp(atoms.positions, axis=0) + 2 * CUTOFF)
        i, j, r, vector = neighbour_list(
            "ijdD", positions=atoms.positions, cell=cell, pbc=atoms.pbc, cell_origin=origin, cutoff=CUTOFF
        )
        if len(r) and r.min() < self.limit:
            raise RuntimeError("did not converge")
        r0 = covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]
        grown = np.exp(-6.0 * (r / r0 - 1))
        pair = self.depth * (grown**2 - 2 * grown)
        slope = self.depth * -6.0 / r0 * (2 * grown**2 - 2 * grown)
        well = self.hole * np.exp(-((r / (0.6 * r0)) ** 4))
        pair, slope = pair - well, slope + well * 4 * r**3 / (0.6 * r0) ** 4
        x = r / CUTOFF
        smooth, bend = 1 - 10 * x**3 + 15 * x**4 - 6 * x**5, (-30 * x**2 + 60 * x**3 - 30 * x**4) / CUTOFF
        pair, slope = pair * smooth, slope * smooth + pair * bend
        energy = 0.5 * pair.sum()
        gradient = 0.5 * slope  # dE / dr of every ordered pair
        if self.crowd:
            near = 1 / (1 + np.exp((r / r0 - 1.3) / 0.02))
            number = np.bincount(i, weights=near, minlength=len(atoms))
            over = np.log1p(np.exp(number - 8))
            energy -= self.crowd * (over**2).sum()
            rate = -2 * self.crowd * over / (1 + np.exp(8 - number))
            gradient = gradient + rate[i] * -near * (1 - near) / (0.02 * r0)
        pull = gradient[:, None] * vector / r[:, None]
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, i, pull)
        np.add.at(forces, j, -pull)
        relative = atoms.positions - atoms.positions.mean(axis=0)
        forces += self.swirl * np.cross([0.0, 0.0, 1.0], relative)
        energy -= self.field * relative[0, 0]
        energy += self.offset * len(atoms)
        if self.single:
            energy, forces = float(np.float32(energy)), forces.astype(np.float32)
        self.results = {"energy": float(energy), "forces": forces}
        if atoms.pbc.all():
            virial = pull.T @ vector
            self.results["stress"] = full_3x3_to_voigt_6_stress(0.5 * (virial + virial.T) / atoms.get_volume())


class Deadly(Calculator):
    """Ends its process, as a crash in compiled code does."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, *_: Any, **__: Any) -> None:
        os._exit(9)
