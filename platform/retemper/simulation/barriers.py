"""Reaction barriers and the molecules that a structure is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes

from retemper.data.geometry import neighbours
from retemper.models.evaluators import Evaluator

BOND = 1.25  # times the sum of covalent radii


@dataclass(frozen=True)
class Band:
    """A path from one end to another, both included."""

    barrier: float  # eV, from the first end
    energies: np.ndarray  # [n_images] eV
    converged: bool
    positions: np.ndarray  # [n_images, n_atoms, 3] A


class OfEvaluator(Calculator):
    """An evaluator as ASE calculator, for ASE's algorithms. A structure that fails is a `CalculationFailed`."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, evaluator: Evaluator):
        super().__init__()  # type: ignore[no-untyped-call]
        self.evaluator = evaluator

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        evaluated = self.evaluator([self.atoms])
        if evaluated.reasons[0]:
            raise CalculationFailed(evaluated.reasons[0])
        self.results = {"energy": float(evaluated.energy[0]), "forces": evaluated.forces[0]}


def barrier(evaluator: Evaluator, ends: Sequence[Atoms], images: int, steps: int) -> Band:
    """Barrier (eV) from relaxed `ends[0]` along a climbing nudged elastic band with `images` between the ends.

    G. Henkelman et al., J. Chem. Phys. 113, 9901 (2000).
    """
    from ase.mep import NEB
    from ase.optimize import FIRE

    path = [ends[0].copy()] + [ends[0].copy() for _ in range(images)] + [ends[1].copy()]
    for image in path:
        image.calc = OfEvaluator(evaluator)
    for end in (path[0], path[-1]):
        FIRE(end, logfile=None).run(fmax=0.05, steps=steps)
    band = NEB(path, climb=True, method="improvedtangent")
    band.interpolate(method="idpp")
    converged = FIRE(band, logfile=None).run(fmax=0.1, steps=steps)
    energies = np.array([image.get_potential_energy() for image in path])
    return Band(
        barrier=float(energies.max() - energies[0]),
        energies=energies,
        converged=bool(converged),
        positions=np.array([image.positions for image in path]),
    )


def fragments(atoms: Atoms) -> list[Atoms]:
    """The molecules and single atoms of a non-periodic structure, by covalent bonds; metals bind nothing."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first, second, _, _ = neighbours(atoms, BOND)
    metal = np.isin(atoms.numbers, [3, 4, 11, 12, 19, 20, 37, 38, 55, 56])
    use = ~(metal[first] | metal[second])
    links = coo_matrix((np.ones(use.sum()), (first[use], second[use])), shape=(len(atoms), len(atoms)))
    number, label = connected_components(links, directed=False)
    return [Atoms(atoms.numbers[label == k], atoms.positions[label == k]) for k in range(number)]
