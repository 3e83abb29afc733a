"""Ways to atomic reference energies (E0s) for a new level of theory.

A foundation's E0s belong to its level of theory. Fine-tuning data at another level need
others, or the model must learn thousands of eV. Four ways to get them:

``isolated``
    Energies of free atoms at the new level. Exact physics, but the difference between the
    two levels' cohesive energies stays in the data, for training to learn.
``foundation``
    The foundation's own, unchanged.
``reestimate``
    The foundation's own plus the correction d that minimises || (E_ref - E_foundation) - N d ||
    over the training frames (N: number of atoms of each element), where odd frames weigh less and
    frames of another charge than the rest nothing (`retemper.prepare.e0_fit`). Directions of d that the
    frames leave undetermined do not change any frame's energy: free atoms, where there are some,
    settle them. In directions that the frames know worse than ``e0s.max_uncertainty`` frames and
    free atoms count by their variances.
``average``
    Least squares of E_ref = N E0 without the foundation. Only computed when asked for by name.

References
----------
Model-aware re-estimation, and its comparison with averaging: arXiv:2606.12704.
The formulas with full rank: ``estimate_e0s_from_foundation`` and ``compute_average_E0s`` of
``mace.data.utils`` (mace-torch 0.3.16).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from retemper.core.errors import RetemperError
from retemper.data.charge import charge_of
from retemper.data.composition import composition_matrix, null_basis
from retemper.data.frames import ENERGY
from retemper.prepare import e0_fit

SAME_ATOM = 1e-3  # eV; free atoms of one element that differ by more are different states


@dataclass(frozen=True)
class Problem:
    """What the methods work with; n elements of the data, m training frames."""

    numbers: list[int]  # [n] atomic numbers, sorted
    counts: np.ndarray  # [m, n] atoms of each element
    energy: np.ndarray  # [m] eV, reference
    predicted: np.ndarray  # [m] eV, the foundation's
    own: np.ndarray  # [n] eV, the foundation's E0s
    isolated: dict[int, float]  # eV, free atoms at the new level (elements of `numbers` only)
    charge: np.ndarray | None = None  # [m] e; None: all neutral
    groups: Sequence[str] | None = None  # [m] names; None: by composition alone
    limit: float = 0.1  # eV; directions known to worse are settled with free atoms

    @property
    def has_atom(self) -> np.ndarray:
        """[n] booleans: is there a free atom of the element?"""
        return np.array([z in self.isolated for z in self.numbers])

    @cached_property
    def atoms(self) -> np.ndarray:
        """[n] eV: what free atoms say of the correction of the foundation's E0s; NaN where there is none."""
        return np.asarray(np.array([self.isolated.get(z, np.nan) for z in self.numbers]) - self.own)

    @cached_property
    def clusters(self) -> np.ndarray:
        """[m] numbers of clusters: frames that share a composition or a group."""
        return np.asarray(e0_fit.clusters(self.counts, self.groups))

    @cached_property
    def deciding(self) -> np.ndarray:
        """[m] booleans: frames of the commonest charge."""
        return e0_fit.commonest(np.zeros(len(self.counts)) if self.charge is None else self.charge)

    @cached_property
    def fit(self) -> e0_fit.Fit:
        """The correction that the frames ask for."""
        return e0_fit.fit(self.counts, self.energy - self.predicted, self.clusters, self.deciding, self.atoms)

    def of(self, frames: np.ndarray) -> Problem:
        """The problem of some of the frames ([m] booleans), with the elements that occur in them."""
        columns = self.counts[frames].any(axis=0)
        numbers = [z for z, occurs in zip(self.numbers, columns, strict=True) if occurs]
        return Problem(
            numbers,
            self.counts[frames][:, columns],
            self.energy[frames],
            self.predicted[frames],
            self.own[columns],
            {z: e for z, e in self.isolated.items() if z in numbers},
            None if self.charge is None else self.charge[frames],
            None if self.groups is None else [str(g) for g in np.asarray(self.groups)[frames]],
            self.limit,
        )


def least_norm(counts: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The shortest x [n] that minimises || counts x - target ||; numpy's rank tolerance, as in MACE."""
    solution: np.ndarray = np.linalg.lstsq(counts, target, rcond=None)[0]
    return solution


def reestimate(problem: Problem) -> np.ndarray:
    """Model-aware E0s [n] in eV: frames first, free atoms for what the frames leave open.

    With full rank, frames that are not odd and standard errors below the limit this is MACE's formula. With d0 the
    least-norm solution over the frames and V [n, k] an orthonormal basis of the null space of N, every d0 + V c fits
    the frames equally well. c is the shortest one that brings the E0s of elements with a free atom nearest to the
    free atoms' energies; without free atoms c = 0: the E0s nearest to the foundation's.
    """
    return np.asarray(problem.own + e0_fit.settle(problem.fit, problem.atoms, problem.limit)[0])


def new_compositions(problem: Problem, folds: int = 5) -> float | None:
    """RMSE in meV/atom on clusters of frames (compositions, groups) that re-estimation did not see, by `folds` folds.

    Of frames whose elements occur in the rest and which have the commonest charge; `None` with fewer clusters than
    `folds`.
    """
    numbers = np.unique(problem.clusters[problem.deciding])
    if len(numbers) < folds:
        return None
    place = dict(zip(numbers.tolist(), np.random.default_rng(0).permutation(len(numbers)) % folds, strict=True))
    fold = np.array([place.get(k, -1) for k in problem.clusters.tolist()])
    errors = []
    for k in range(folds):
        rest = problem.of((fold >= 0) & (fold != k))
        columns = np.isin(problem.numbers, rest.numbers)
        apart = (fold == k) & ~problem.counts[:, ~columns].any(axis=1)
        left = (problem.energy - problem.predicted)[apart] - problem.counts[apart][:, columns] @ (
            reestimate(rest) - rest.own
        )
        errors.append(left / problem.counts[apart].sum(axis=1))
    every = np.concatenate(errors)
    return 1000.0 * float(np.sqrt(np.mean(every**2))) if len(every) else None


def average(problem: Problem) -> np.ndarray:
    """E0s [n] in eV by least squares of the energies alone; they hold binding energies too."""
    return least_norm(problem.counts, problem.energy)


def settled_average(problem: Problem) -> np.ndarray:
    """`average` [n] in eV, where free atoms settle what the compositions leave open."""
    energies, basis, known = average(problem), null_basis(problem.counts), problem.has_atom
    atoms = np.array([problem.isolated[z] for z in problem.numbers if z in problem.isolated])
    if not known.any():
        return energies
    return np.asarray(energies + basis @ least_norm(basis[known], atoms - energies[known]))


def group_names(frames: Sequence[Atoms]) -> list[str]:
    """[m] the group of each frame: ``info["group"]``, or the composition where it has none."""
    return [str(atoms.info.get("group") or atoms.symbols.formula.format("hill")) for atoms in frames]


def from_atoms(problem: Problem) -> np.ndarray:
    """The free atoms' energies [n] in eV; an element without one is a `RetemperError`."""
    lacking = [chemical_symbols[z] for z in problem.numbers if z not in problem.isolated]
    if lacking:
        raise RetemperError(
            f"E0 method 'isolated': no free atom of {', '.join(lacking)} in the data.",
            expected="one frame with a single atom, not periodic, for every element of the data",
            fix="compute the atoms at your level of theory (ground-state multiplicity), or set e0s.method: reestimate",
        )
    return np.array([problem.isolated[z] for z in problem.numbers])


METHODS: dict[str, Callable[[Problem], np.ndarray]] = {
    "isolated": from_atoms,
    "foundation": lambda problem: problem.own,
    "reestimate": reestimate,
    "average": average,
}


def isolated_energies(frames: Sequence[Atoms]) -> dict[int, float]:
    """Free-atom energies {atomic number: eV}; two states of one element are a `RetemperError`."""
    by_element: dict[int, list[float]] = {}
    for atoms in frames:
        by_element.setdefault(int(atoms.numbers[0]), []).append(float(atoms.info[ENERGY]))
    for z, energies in by_element.items():
        if max(energies) - min(energies) > SAME_ATOM:
            raise RetemperError(
                f"Several free atoms of {chemical_symbols[z]} with different energies.",
                expected="one energy an element: the ground state's",
                got=", ".join(f"{energy:.4f} eV" for energy in sorted(energies)),
                fix="keep the frame with the right multiplicity (Hund's rules)",
            )
    return {z: min(energies) for z, energies in by_element.items()}


@dataclass(frozen=True)
class Recovery:
    """How well methods find free-atom energies that they are not shown."""

    frames: int
    n_elements: int
    rank: int
    hidden: str  # "all" or "each in turn"
    errors: dict[str, dict[int, float]]  # eV, by method (foundation: its own E0s) and atomic number

    def mae(self, method: str) -> float:
        """Mean absolute error of a method, eV."""
        return float(np.mean(np.abs([*self.errors[method].values()])))


def recovery(model: Path, frames: Sequence[Atoms], isolated: dict[int, float], *, head: str | None = None) -> Recovery:
    """How well re-estimation and averaging recover free-atom energies that they are not shown.

    Where the compositions have full rank all atoms are hidden at once. Otherwise no method could know them
    all: each is hidden in turn while the others settle the open directions, for averaging as for re-estimation.

    Parameters
    ----------
    model, head
        Foundation.
    frames
        Labelled frames, without free atoms.
    isolated
        {atomic number: eV}, the truth; elements that `frames` lack are left out.
    """
    from retemper.models import mace, predict

    numbers = sorted({int(z) for atoms in frames for z in atoms.numbers})
    all_e0s = mace.atomic_energies(model, head)
    foundation_e0s = np.array([all_e0s[z] for z in numbers])
    energy = np.array([float(atoms.info[ENERGY]) for atoms in frames])
    predicted = predict.predict(model, frames, head=head, progress=True).energy
    counts = composition_matrix(frames, numbers)
    charge, groups = np.array([charge_of(atoms) for atoms in frames]), group_names(frames)
    truth = {z: isolated[z] for z in numbers if z in isolated}
    rank = len(numbers) - null_basis(counts).shape[1]
    full = rank == len(numbers)
    errors: dict[str, dict[int, float]] = {"reestimate": {}, "average": {}, "foundation": {}}
    for atoms in [set(truth)] if full else [{z} for z in truth]:
        shown = {z: e for z, e in truth.items() if z not in atoms}
        energies = {
            "reestimate": reestimate(
                Problem(numbers, counts, energy, predicted, foundation_e0s, shown, charge, groups)
            ),
            "average": settled_average(Problem(numbers, counts, energy, predicted, foundation_e0s, shown)),
            "foundation": foundation_e0s,
        }
        for method, values in energies.items():
            errors[method].update({z: float(values[numbers.index(z)] - truth[z]) for z in atoms})
    return Recovery(len(frames), len(numbers), rank, "all" if full else "each in turn", errors)
