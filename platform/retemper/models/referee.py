"""symmetrix kept honest by torch: what is compared, what is allowed, and what follows from a difference.

Two comparisons, both with MACE in float64:

*Of the model*, once for each extraction: random clusters and periodic cells in which every pair of its elements is met
several times, from `NEAREST` times the sum of the covalent radii to the cut-off. symmetrix tabulates the radial
functions of each pair; a pair that it has wrong, or an architecture that it does not know, shows here. The verdict is
remembered by content: weights, head, elements, versions.

*Of the frames*, in every call: those with the shortest distance, the largest force and the largest stress, and random
ones, some `SHARE` of all and two at least (`sample`). Frames with atoms nearer than `NEAREST`, or with numbers that are
not finite, are always among them. Frames that were compared keep torch's numbers. While some are off, as many again
are compared, until a doubling brings none, or torch has computed everything.

What this can miss: a fault that neither pair nor distance nor force tells apart, in few frames. Of frames of which a
fraction f is off at random, all are missed with probability (1 - f)^m, with m the random ones of the sample.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from retemper.core import sealed, software
from retemper.core.files import digest
from retemper.data.frames import structure_hash
from retemper.models import mace, symmetrix
from retemper.models.predictions import Predictions, has_stress

FORM = 1  # of verdicts; others are made again
# Differences that are allowed: eV/A and eV/atom times 1 + the frame's largest force in eV/A; eV/A^3.
FORCES, ENERGY, STRESS = 1e-5, 1e-6, 1e-6
STRESS_RELATIVE = 1e-5  # of the frame's largest component of the stress, on top
SHARE = 0.03  # of the frames of a call that are compared
FEWEST = 2
NEAREST = 0.6  # of the sum of the covalent radii
SPREAD = (NEAREST, 0.75, 0.9)  # nearest distances in the structures that a model is compared on
MEETINGS = 4  # of every pair of elements in those structures
CLUSTER = 10  # atoms
REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError)  # symmetrix's ways to refuse a model

Torch = Callable[[list[Atoms]], Predictions]


@dataclass(frozen=True)
class Verdict:
    """What came of the comparison of a model."""

    refused: str  # why symmetrix cannot compute it; "" where it can
    worst: float  # largest difference, in units of what is allowed
    structures: int

    @property
    def objection(self) -> str:
        """Why symmetrix is not to be used, or ""."""
        if self.refused:
            return f"symmetrix refuses the model ({self.refused})"
        if not self.worst <= 1:
            return f"symmetrix is off by {self.worst:.3g} times what is allowed on {self.structures} structures"
        return ""


def judge(model: str | Path, head: str, elements: Sequence[int], frames: Sequence[Atoms], cache: Path) -> Verdict:
    """The verdict on a model for `elements`, on `trials` and on `frames`, remembered in `cache`."""
    structures = [*trials(elements, float(mace.load(model).r_max)), *frames]
    versions = software.packages("symmetrix", "mace", "torch")
    settings = [FORM, symmetrix.SPLINE_POINTS, FORCES, ENERGY, STRESS, STRESS_RELATIVE]
    hashes = [structure_hash(atoms) for atoms in structures]
    key = digest([software.content(model), head, sorted(set(elements)), versions, settings, hashes])
    path = cache / f"verdict-{key}.json"
    content = sealed.read_json(path, key)
    if content is None:
        refused, worst = _compare(model, head, elements, structures)
        content = {"refused": refused, "worst": worst}
        sealed.write_json(path, key, content)
    return Verdict(str(content["refused"]), float(content["worst"]), len(structures))


def _compare(model: str | Path, head: str, elements: Sequence[int], structures: list[Atoms]) -> tuple[str, float]:
    """Why symmetrix refuses the model, or "", and the largest difference."""
    try:
        fast, _ = symmetrix.predict(symmetrix.extracted(model, head, elements), structures)
    except REFUSALS as error:
        return str(error)[:200] or type(error).__name__, 0.0
    right = mace.predict_torch(model, structures, head, "float64", "cpu", False, checked=False)
    worst = float(differences(structures, fast, right).max())
    return "", worst if np.isfinite(worst) else 1e300


def differences(frames: Sequence[Atoms], fast: Predictions, right: Predictions) -> np.ndarray:
    """Largest difference of each frame [n_frames], in units of what is allowed: above 1 is too much.

    Infinite where `fast` alone is not finite, 0 where `right` is not: then there is nothing to compare with.
    """
    off = np.zeros(len(frames))
    for i, atoms in enumerate(frames):
        if not _finite(atoms, right, i):
            continue
        if not _finite(atoms, fast, i):
            off[i] = np.inf
            continue
        scale = 1 + float(np.abs(right.forces[i]).max())
        off[i] = max(
            float(np.abs(fast.forces[i] - right.forces[i]).max()) / (FORCES * scale),
            abs(float(fast.energy[i] - right.energy[i])) / len(atoms) / (ENERGY * scale),
        )
        if has_stress(atoms):
            allowed = STRESS + STRESS_RELATIVE * float(np.abs(right.stress[i]).max())
            off[i] = max(off[i], float(np.abs(fast.stress[i] - right.stress[i]).max()) / allowed)
    return off


def settle(frames: Sequence[Atoms], fast: Predictions, closest: np.ndarray, torch: Torch) -> tuple[Predictions, int]:
    """Predictions of symmetrix with torch's in the place of those that were compared, and how many were off.

    Parameters
    ----------
    closest
        [n_frames] the shortest distance in each frame, over the sum of the covalent radii.
    torch
        Computes frames with MACE.
    """
    energy, forces, stress = fast.energy.copy(), list(fast.forces), fast.stress.copy()
    order, wanted = sample(frames, fast, closest)
    compared = wrong = 0
    while compared < len(frames):
        indices = order[compared:wanted]
        subset = [frames[i] for i in indices]
        right = torch(subset)
        part = Predictions(energy[indices], [forces[i] for i in indices], stress[indices], fast.backend)
        off = int((differences(subset, part, right) > 1).sum())
        for k, i in enumerate(indices):
            energy[i], forces[i], stress[i] = right.energy[k], right.forces[k], right.stress[k]
        compared, wrong = min(wanted, len(frames)), wrong + off
        if not off:
            break
        wanted = 2 * wanted
    backend = "torch" if compared == len(frames) and wrong else fast.backend
    return Predictions(energy, forces, stress, backend), wrong


def sample(frames: Sequence[Atoms], fast: Predictions, closest: np.ndarray) -> tuple[list[int], int]:
    """All indices, those that tell most first, and how many of them are compared at the least.

    First what is always compared, then in turn one of the nearest atoms, a random one, one of the largest force, a
    random one, one of the largest stress, a random one. The same frames give the same order.
    """
    finite = np.array([_finite(atoms, fast, i) for i, atoms in enumerate(frames)])
    always = np.flatnonzero(~finite | (closest < NEAREST)).tolist()
    force = np.array([np.abs(f).max() if fine else np.inf for f, fine in zip(fast.forces, finite, strict=True)])
    stress = np.nan_to_num(np.abs(fast.stress).max(axis=(1, 2)), nan=0.0)
    seed = zlib.crc32(b"".join(np.ascontiguousarray(atoms.positions).tobytes() for atoms in frames))
    random = np.random.default_rng(seed).permutation(len(frames)).tolist()
    nearest, strongest, pressed = (np.argsort(value, kind="stable").tolist() for value in (closest, -force, -stress))
    orders = [nearest, random, strongest, random[1:], pressed, random[2:]]
    ranked = [order[k] for k in range(len(frames)) for order in orders if k < len(order)]
    number = max(FEWEST, round(SHARE * len(frames)))
    return list(dict.fromkeys([*always, *ranked])), len(always) + number


def _finite(atoms: Atoms, predicted: Predictions, i: int) -> bool:
    fine = np.isfinite(predicted.energy[i]) and np.isfinite(predicted.forces[i]).all()
    return bool(fine and (not has_stress(atoms) or np.isfinite(predicted.stress[i]).all()))


def trials(elements: Sequence[int], cutoff: float) -> list[Atoms]:
    """Clusters and periodic cells of `CLUSTER` atoms where every pair of elements meets `MEETINGS` times or more."""
    kinds = sorted(set(elements))
    met = np.zeros((len(kinds), len(kinds)), dtype=int)
    rng = np.random.default_rng(len(kinds))
    structures: list[Atoms] = []
    while met.min() < MEETINGS or len(structures) < 2 * len(SPREAD):
        members = [int(k) for k in divmod(int(met.argmin()), len(kinds))]  # of the pair that was met least
        while len(members) < CLUSTER:
            members.append(int(np.lexsort((rng.random(len(kinds)), met[:, members].sum(axis=1)))[0]))
        for a, b in itertools.combinations(members, 2):
            met[a, b] += 1
            met[b, a] += a != b
        structures.append(_pack([kinds[k] for k in members], SPREAD[len(structures) // 2 % len(SPREAD)], cutoff, rng))
        if len(structures) % 2 == 0:
            structures[-1].set_cell(np.eye(3) * (np.ptp(structures[-1].positions, axis=0).max() + 2.5))
            structures[-1].pbc = True
    return structures


def _pack(numbers: Sequence[int], nearest: float, cutoff: float, rng: np.random.Generator) -> Atoms:
    """Atoms at random in a sphere, no two nearer than `nearest` times the sum of their covalent radii."""
    radius = cutoff / 2  # A
    positions = np.empty((0, 3))
    while len(positions) < len(numbers):
        k = len(positions)
        direction = rng.normal(size=3)
        place = radius * rng.random() ** (1 / 3) * direction / np.linalg.norm(direction)
        limits = nearest * (covalent_radii[numbers[k]] + covalent_radii[list(numbers[:k])])
        if (np.linalg.norm(positions - place, axis=1) >= limits).all():
            positions = np.vstack([positions, place])
        else:
            radius *= 1.02
    return Atoms(numbers, positions)
