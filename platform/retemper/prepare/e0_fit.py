"""What frames say of E0s, robustly, and how surely: odd frames, standard errors over groups, free atoms as evidence.

E_ref - E_foundation is fitted by N d (N: atoms of each element, d: correction of the E0s). A foundation's errors are
alike for frames of one group (``info["group"]``) and of one composition, so such frames count as one cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import orth
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from retemper.data.composition import null_basis
from retemper.data.energies_by_element import least_absolute

Array = np.ndarray
ODD = 5.0  # robust standard deviations from which a frame weighs less
SPREAD = 1.5  # eV; free atoms lie so far from what frames say of them (benchmarks/e0_recovery.py: 0.5 to 1.9)
CONTRADICTS = 4.0  # standard deviations between free atoms and a direction that few frames hold
FEW, SHARE = 5, 0.1  # a direction is held by few: fewer clusters, and a smaller share of the frames
TYPICAL = 0.05  # eV/atom; a foundation's error where no frame is left to tell it
SEEN = 0.1  # length of a direction's components on elements with a free atom, from which these settle it
ALIKE = 0.1  # part by which directions differ that are taken for one
LEAST_SCALE = 1e-4  # eV/atom; no scatter is taken for smaller


@dataclass(frozen=True)
class Fit:
    """The correction that frames ask for; n elements, m frames."""

    shift: Array  # [n] eV; nothing along directions that no frame sees
    covariance: Array  # [n, n] eV^2, along the directions that frames see
    unseen: Array  # [n, k] orthonormal directions that no deciding frame sees
    few: Array  # [n, k] orthonormal directions that few frames hold
    weights: Array  # [m] 0: another charge than the rest, or at odds with free atoms; below 1: odd
    support: Array  # [n] effective number of clusters behind each element's figure

    def poor(self, limit: float) -> tuple[Array, Array]:
        """Directions [n, k] that frames see, with standard errors [k] in eV that are above `limit`."""
        seen = orth(np.eye(len(self.shift)) - self.unseen @ self.unseen.T)
        variance, vectors = np.linalg.eigh(seen.T @ self.covariance @ seen)
        error = np.sqrt(np.maximum(variance, 0))
        return seen @ vectors[:, error > limit], error[error > limit]


def clusters(counts: Array, groups: Sequence[str] | None) -> Array:
    """Numbers [m] of clusters: frames that share a composition or a group, directly or through others."""
    _, formula = np.unique(counts, axis=0, return_inverse=True)
    formula = formula.ravel()
    if groups is None:
        return np.asarray(formula)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    n = int(formula.max(initial=0)) + 1
    size = n + int(group.max(initial=0)) + 1
    links = coo_matrix((np.ones(len(formula)), (formula, n + group)), shape=(size, size))
    return np.unique(connected_components(links, directed=False)[1][formula], return_inverse=True)[1]


def commonest(charge: Array) -> Array:
    """[m] booleans: frames of the most frequent charge, of equals the neutral one."""
    values, numbers = np.unique(charge, return_counts=True)
    best = max(range(len(values)), key=lambda k: (numbers[k], values[k] == 0))
    return np.asarray(charge == values[best])


def fit(counts: Array, target: Array, cluster: Array, deciding: Array, atoms: Array) -> Fit:
    """The robust fit of `target` by `counts` @ d.

    Least squares of total energies, where frames `ODD` robust standard deviations (of energies per atom) from the fit
    by least absolute deviations weigh less, as in Huber's estimator; without such frames it is plain least squares.
    Frames that alone hold a direction and put it `CONTRADICTS` standard deviations from the free atoms do not count.

    Parameters
    ----------
    counts
        [m, n] atoms of each element.
    target
        [m] E_ref - E_foundation with the foundation's own E0s, eV.
    cluster
        [m] numbers of `clusters`.
    deciding
        [m] booleans: frames that take part.
    atoms
        [n] what free atoms say of d, eV; NaN where there is none.

    References
    ----------
    Huber, Ann. Math. Stat. 35, 73 (1964). Standard errors of clustered data: Moulton, J. Econometrics 32, 385 (1986).
    """
    keep = deciding.copy()
    held, few = few_held(counts[keep], cluster[keep])
    odds = _against_atoms(counts[keep], target[keep], held, atoms)
    keep[np.flatnonzero(keep)[odds]] = False
    if odds.any():
        _, few = few_held(counts[keep], cluster[keep])
    kept_counts, kept_clusters = counts[keep], cluster[keep]
    weights = np.zeros(len(counts))
    weights[keep], _ = _weigh(kept_counts, target[keep])
    root = np.sqrt(weights[keep])
    shift = np.linalg.lstsq(kept_counts * root[:, None], target[keep] * root, rcond=None)[0]
    covariance = _covariance(kept_counts, target[keep] - kept_counts @ shift, weights[keep], kept_clusters)
    support = np.where(kept_counts.any(axis=0), _support(kept_counts, kept_clusters)[0], 0.0)
    return Fit(shift, covariance, null_basis(kept_counts), few, weights, support)


def settle(fitted: Fit, atoms: Array, limit: float) -> tuple[Array, Array]:
    """Free atoms' word on what frames do not know well.

    Along directions that frames do not see, or know worse than `limit` (eV), frames and free atoms are weighted by
    their variances (free atoms: `SPREAD`); of equals the shortest correction. Elsewhere frames decide alone.

    Returns
    -------
    shift
        [n] eV.
    error
        [n] standard errors in eV; infinite for elements that neither frames nor free atoms determine.
    """
    poor, errors = fitted.poor(limit)
    weak = np.hstack([fitted.unseen, poor])
    precision = np.concatenate([np.zeros(fitted.unseen.shape[1]), errors**-2.0])
    known = ~np.isnan(atoms)
    rows = np.vstack([np.diag(np.sqrt(precision)), weak[known] / SPREAD])
    say = np.concatenate([np.zeros(len(precision)), (atoms - fitted.shift)[known] / SPREAD])
    shift = fitted.shift + weak @ np.linalg.lstsq(rows, say, rcond=1e-9)[0] if known.any() else fitted.shift
    strong = np.eye(len(shift)) - weak @ weak.T
    variance = np.einsum("ij,jk,ik->i", strong, fitted.covariance, strong)
    variance += np.einsum("ij,jk,ik->i", weak, np.linalg.pinv(rows.T @ rows, rcond=1e-9), weak)
    loose = np.linalg.norm(weak @ null_basis(rows), axis=1) > 1e-6 if weak.shape[1] else np.zeros(len(shift), bool)
    return shift, np.where(loose, np.inf, np.sqrt(variance))


def left_open(fitted: Fit, has_atom: Array, limit: float) -> Array:
    """Directions [n, k] that frames do not see, know worse than `limit` or hold by few, and no free atom settles."""
    return unsettled(np.hstack([fitted.unseen, fitted.poor(limit)[0], fitted.few]), has_atom)


def unsettled(directions: Array, has_atom: Array) -> Array:
    """Orthonormal directions [n, k] among `directions` [n, any] that no free atom settles ([n] booleans)."""
    if not directions.shape[1]:
        return directions
    basis = orth(directions, rcond=ALIKE)
    _, length, vectors = np.linalg.svd(basis[has_atom], full_matrices=True)
    return np.asarray(basis @ vectors[int((length > SEEN).sum()) :].T)


def few_held(counts: Array, cluster: Array) -> tuple[Array, Array]:
    """Frames [m] (booleans) that alone hold a direction of the compositions, and these directions [n, k]."""
    number, share = _support(counts, cluster)
    unseen = null_basis(counts)
    held = np.zeros(len(counts), dtype=bool)
    directions = [np.zeros((counts.shape[1], 0))]
    for z in np.flatnonzero(number < FEW):
        order = np.argsort(-share[z])
        most = order[: int(np.searchsorted(np.cumsum(share[z][order]), 0.95)) + 1]
        behind = np.isin(cluster, most)
        if 0 < behind.sum() <= SHARE * len(counts):
            basis = null_basis(counts[~behind])
            if basis.shape[1] > unseen.shape[1]:
                directions.append(orth(basis - unseen @ (unseen.T @ basis), rcond=1e-6))
                held |= behind
    every = np.hstack(directions)
    return held, orth(every, rcond=ALIKE) if every.shape[1] else every


def _support(counts: Array, cluster: Array) -> tuple[Array, Array]:
    """Effective number of clusters behind each element's figure [n], and each cluster's share in it [n, clusters]."""
    influence = (counts @ np.linalg.pinv(counts.T @ counts, hermitian=True, rcond=1e-12)) ** 2
    share = np.zeros((counts.shape[1], int(cluster.max(initial=0)) + 1))
    for z in range(counts.shape[1]):
        share[z] = np.bincount(cluster, influence[:, z], minlength=share.shape[1])
    share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
    return 1 / np.maximum((share**2).sum(axis=1), 1e-300), share


def _weigh(counts: Array, target: Array) -> tuple[Array, float]:
    """Huber's weights [m], and the robust standard deviation of the residuals, eV/atom."""
    size = counts.sum(axis=1)
    rest = np.abs(target / size - (counts / size[:, None]) @ least_absolute(counts / size[:, None], target / size))
    rank = counts.shape[1] - null_basis(counts).shape[1]
    over = np.sort(rest)[rank:]  # least absolute deviations make as many residuals zero
    scale = max(float(np.median(over)) / 0.6745 if len(over) else 0.0, LEAST_SCALE)
    return ODD * scale / np.maximum(rest, ODD * scale), scale


def _against_atoms(counts: Array, target: Array, held: Array, atoms: Array) -> Array:
    """Frames [m] (booleans) among `held` that are at odds with the free atoms; none where these are silent."""
    none = np.zeros(len(counts), dtype=bool)
    known = ~np.isnan(atoms)
    if not held.any() or not known.any():
        return none
    some, rest = counts[~held], target[~held]
    basis = null_basis(some)
    if np.linalg.svd(basis[known], compute_uv=False)[: basis.shape[1]].min(initial=1) < SEEN:
        return none
    weights, scale = _weigh(some, rest)
    root = np.sqrt(weights)
    shift = np.linalg.lstsq(some * root[:, None], rest * root, rcond=None)[0]
    shift = shift + basis @ np.linalg.lstsq(basis[known], (atoms - shift)[known], rcond=None)[0]
    size = counts.sum(axis=1)
    spread = np.hypot(scale, SPREAD * np.linalg.norm(counts @ basis, axis=1) / size)
    return np.asarray(held & (np.abs(target - counts @ shift) / size > CONTRADICTS * spread))


def _covariance(counts: Array, rest: Array, weights: Array, cluster: Array) -> Array:
    """Covariance [n, n] of the fit, eV^2, with an error that a cluster shares and one that is each frame's own."""
    within, between = _components(counts, rest * weights, cluster)
    weighted = counts * weights[:, None]
    inverse = np.linalg.pinv(counts.T @ weighted, hermitian=True, rcond=1e-12)
    sums = np.zeros((int(cluster.max()) + 1, counts.shape[1]))
    np.add.at(sums, cluster, weighted)
    return np.asarray(inverse @ (within * weighted.T @ weighted + between * sums.T @ sums) @ inverse)


def _components(counts: Array, rest: Array, cluster: Array) -> tuple[float, float]:
    """Variances of a frame's own error and of its cluster's, eV^2, by analysis of variance of the residuals."""
    frames, rank = len(rest), counts.shape[1] - null_basis(counts).shape[1]
    _, cluster, size = np.unique(cluster, return_inverse=True, return_counts=True)
    groups = len(size)
    if frames <= rank:
        return float((TYPICAL * counts.sum(axis=1).mean()) ** 2), 0.0
    if frames == groups:
        return float((rest**2).sum() / (frames - rank)), 0.0
    mean = np.bincount(cluster, rest) / size
    within = float(((rest - mean[cluster]) ** 2).sum() / (frames - groups))
    if groups <= rank:  # the fit takes up what clusters have of their own: as large as what frames have
        return within, within
    among = float((size * mean**2).sum() / (groups - rank))
    usual = (frames - (size**2).sum() / frames) / (groups - 1)
    return within, max(0.0, (among - within) / usual)
