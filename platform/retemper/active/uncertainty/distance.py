"""Distance of an atom's environment to its nearest neighbours in the training set, in MACE descriptor space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from pydantic import Field

from retemper.active.estimate import Context, Estimator, Info
from retemper.config.settings import Section
from retemper.models.descriptors import atomic_descriptors

INFO = Info(
    title="Distance to the nearest training environments of the element, in descriptor space",
    models=1,
    reference="J. P. Janet et al., Chem. Sci. 10, 7913 (2019)",
)
FLOOR = 0.01  # of the largest standard deviation of a descriptor: less is not made larger
ATOMS = 20_000  # training environments an element


class Options(Section):
    neighbours: int = Field(3, ge=1)  # whose mean distance counts


def fit(context: Context, options: Options) -> Estimator:
    """A tree an element over standardised descriptors; an element that is new is infinitely far."""
    from scipy.spatial import cKDTree

    model = context.models[0]

    def describe(frames: Sequence[Atoms]) -> list[np.ndarray]:
        return atomic_descriptors(model, frames, head=context.head, device=context.device)

    numbers = np.concatenate([atoms.numbers for atoms in context.train])
    points = np.concatenate(describe(context.train))
    rng = np.random.default_rng(0)
    trees = {}
    for z in np.unique(numbers):
        environments = points[numbers == z]
        environments = environments[rng.permutation(len(environments))[:ATOMS]]
        scale = np.maximum(environments.std(axis=0), FLOOR * environments.std(axis=0).max() + 1e-9)
        trees[int(z)] = (scale, cKDTree(environments / scale), len(environments))

    def estimate(frames: Sequence[Atoms]) -> list[np.ndarray]:
        distances = []
        for atoms, environments in zip(frames, describe(frames), strict=True):
            nearest = np.full(len(atoms), np.inf)
            for z in np.unique(atoms.numbers):
                if int(z) in trees:
                    scale, tree, n = trees[int(z)]
                    queries = environments[atoms.numbers == z] / scale
                    distance, _ = tree.query(queries, k=range(1, min(options.neighbours, n) + 1))
                    nearest[atoms.numbers == z] = distance.mean(axis=1)
            distances.append(nearest)
        return distances

    return estimate
