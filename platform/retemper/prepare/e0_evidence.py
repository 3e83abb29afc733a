"""What E0s rest on: which directions of the compositions are determined, by what, and how well."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols
from scipy.linalg import qr

from retemper.data.composition import fixed_ratios, null_basis
from retemper.prepare.e0_fit import left_open, settle
from retemper.prepare.e0_methods import Problem
from retemper.records.e0s import Evidence, Separability

CONCERNED = 0.3  # component of an undetermined direction from which an element is named


def separability(problem: Problem, method: str) -> Separability:
    """Rank of the training compositions, what they cannot separate, and what free atoms leave open of it.

    Free atoms settle what they can for `method` reestimate alone.
    """
    n, eye = len(problem.numbers), np.eye(len(problem.numbers), dtype=int)
    frames = problem.counts if method == "average" else problem.counts[problem.fit.weights > 0]
    singular = np.linalg.svd(frames, compute_uv=False)
    ratios, _, _ = fixed_ratios(frames, problem.numbers)
    counts = {"average": frames, "reestimate": np.vstack([frames, eye[problem.has_atom]])}.get(method, eye)
    open_ratios, elements, atoms = fixed_ratios(counts, problem.numbers)
    if method == "reestimate":
        words, unsure, more = poorly_known(problem, [problem.numbers.index(z) for z in atoms])
        open_ratios, elements, atoms = open_ratios + words, sorted({*elements, *unsure}), sorted({*atoms, *more})
    rank = n - null_basis(frames).shape[1]
    return Separability(
        rank=rank,
        n_elements=n,
        condition_number=float(singular[0] / singular[rank - 1]),
        ratios=ratios,
        open_ratios=open_ratios,
        deficient=[chemical_symbols[z] for z in elements],
        add_atoms=[chemical_symbols[z] for z in atoms],
    )


def poorly_known(problem: Problem, added: list[int]) -> tuple[list[str], list[int], list[int]]:
    """Directions that frames see but do not determine, in words; elements concerned; free atoms that would settle them.

    `added` are columns of elements whose free atoms are asked for already.
    """
    has = problem.has_atom.copy()
    has[added] = True
    directions = left_open(problem.fit, has, problem.limit)
    if not directions.shape[1]:
        return [], [], []
    error = np.sqrt(np.diag(problem.fit.covariance))
    concerned = np.flatnonzero(np.linalg.norm(directions, axis=1) > CONCERNED)
    words = []
    for k in concerned:
        symbol, number = chemical_symbols[problem.numbers[k]], problem.fit.support[k]
        words.append(f"{symbol} is known to {error[k]:.2f} eV (rests on some {number:.0f} compositions or groups)")
    pivots = qr(directions.T, pivoting=True, mode="r")[1][: directions.shape[1]]
    return words, [problem.numbers[k] for k in concerned], sorted(problem.numbers[k] for k in pivots)


def evidence(problem: Problem, method: str, energies: np.ndarray) -> dict[str, Evidence]:
    """What the figure of each element rests on, by symbol, and what it does to energies of other compositions."""
    fit, n = problem.fit, len(problem.numbers)
    error = np.full(n, np.nan) if method == "average" else np.zeros(n)
    rests = [{"isolated": "free atom"}.get(method, method) for _ in range(n)]
    if method == "reestimate":
        error = settle(fit, problem.atoms, problem.limit)[1]
        weak = np.hstack([fit.unseen, fit.poor(problem.limit)[0]])
        settled = (np.linalg.norm(weak, axis=1) > CONCERNED) & problem.has_atom.any() & np.isfinite(error)
        alone = (np.linalg.norm(fit.unseen, axis=1) > 1 - 1e-6) & settled
        rests = ["frames" if e < np.inf else "frames and foundation" for e in error]
        rests = ["frames and free atoms" if s else r for r, s in zip(rests, settled, strict=True)]
        rests = ["free atom" if a else r for r, a in zip(rests, alone, strict=True)]
    elif method == "average":
        rests = ["frames, binding energies included"] * n
    return {
        chemical_symbols[z]: Evidence(
            rests_on=rests[k],
            clusters=float(fit.support[k]) if "frames" in rests[k] else 0.0,
            standard_error=float(error[k]) if np.isfinite(error[k]) else None,
            off_free_atom=float(energies[k] - problem.isolated[z]) if z in problem.isolated else None,
        )
        for k, z in enumerate(problem.numbers)
    }


def left_out(problem: Problem) -> dict[str, int]:
    """How many training frames do not count, or count for less, and why."""
    weights = problem.fit.weights
    return {
        "of another charge than most": int((~problem.deciding).sum()),
        "alone in their composition and at odds with the free atoms": int((problem.deciding & (weights == 0)).sum()),
        "odd, and weigh less": int(((weights > 0) & (weights < 1)).sum()),
    }
