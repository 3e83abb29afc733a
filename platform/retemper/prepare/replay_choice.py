"""Which structures of a pool are replayed: what may be chosen, disjoint groups for validation, the choice itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.config.settings import Replay
from retemper.core.errors import RetemperError
from retemper.data import selection
from retemper.data.frames import ENERGY, FORCES, elements, is_isolated_atom, structure_hash
from retemper.data.grouping import name_of
from retemper.prepare.overlap import NEAR, near
from retemper.records.replay import Coverage


@dataclass(frozen=True)
class Choice:
    """Indices into the pool, and what there is to say about how they came about."""

    train: np.ndarray
    valid: np.ndarray
    left_out: dict[str, int]  # of the pool's structures by reason
    candidates: int
    groups_for_validation: int
    coverage: Coverage | None


def group_of(atoms: Atoms) -> str:
    """The group that keeps a frame and its relatives on one side of a split."""
    group = atoms.info.get("group")
    return str(atoms.symbols) if group is None or str(group).strip() == "" else name_of(group)


def choose(
    pool: Sequence[Atoms],
    settings: Replay,
    *,
    model: str | Path,
    head: str | None = None,
    device: str = "cpu",
    target: Sequence[Atoms] = (),
    tolerance: float = NEAR,
    labelled: bool = True,
    progress: bool = True,
) -> Choice:
    """Pick ``settings.number`` training and ``settings.valid`` validation structures.

    Isolated atoms, repeated structures, structures with elements that the model lacks, and
    structures of `target` (within `tolerance`, A) are left out of the candidates. A random share of the groups is kept
    for validation, whose structures are drawn from it at random, so that they measure the pool
    as it is. Training structures come from the other groups:

    - "farthest-point": farthest-point sampling on the foundation's mean descriptors;
    - "random": at random;
    - "elements": at random among the structures whose elements are all among those of `target`;
      where they are fewer than needed, all of them, filled up with structures that share at
      least one element with it.

    Raises
    ------
    RetemperError
        A pool frame without energy or forces where the pool is `labelled`, or too few candidates or groups.
    """
    candidates, left_out = _candidates(pool, model, target, tolerance, labelled)
    tiers: np.ndarray | None = None
    if settings.select == "elements":
        tiers = selection.element_match([pool[i] for i in candidates], elements(target))
        left_out["shares no element with the target"] = int((tiers == 0).sum())
        candidates, tiers = candidates[tiers > 0], tiers[tiers > 0]
    need = settings.number + settings.valid
    if len(candidates) < need:
        raise RetemperError(
            f"The replay pool has too few structures for select: {settings.select}.",
            expected=f"at least {need} ({settings.number} for training, {settings.valid} for validation)",
            got=f"{len(candidates)} of {len(pool)}; left out: "
            + (", ".join(f"{n} ({why})" for why, n in left_out.items() if n) or "none"),
            fix="lower replay.number or replay.valid, choose another replay.select, or give a larger replay.pool",
        )
    held = _held_out([group_of(pool[i]) for i in candidates], settings)
    rng = np.random.default_rng(settings.seed)
    coverage = None
    if settings.select == "farthest-point":
        from retemper.models.descriptors import mean_descriptors

        if progress:
            print(
                f"replay: farthest-point sampling of {settings.number} from {int((~held).sum())} structures", flush=True
            )
        own = candidates[~held]
        points = mean_descriptors(model, [pool[i] for i in own], head=head, device=device, progress=progress)
        picked = selection.farthest_point(points, settings.number)
        at_random = selection.random(len(own), settings.number, settings.seed)
        coverage = Coverage(
            radius=selection.coverage_radius(points, picked),
            radius_random=selection.coverage_radius(points, at_random),
        )
        train = own[picked]
    else:
        if progress:
            print(f"replay: {settings.select} choice of {settings.number} structures", flush=True)
        train = _draw(candidates[~held], None if tiers is None else tiers[~held], settings.number, rng)
    valid = _draw(candidates[held], None if tiers is None else tiers[held], settings.valid, rng)
    groups = len({group_of(pool[i]) for i in candidates[held]})
    return Choice(train, valid, left_out, len(candidates), groups, coverage)


def _candidates(
    pool: Sequence[Atoms], model: str | Path, target: Sequence[Atoms], tolerance: float, labelled: bool
) -> tuple[np.ndarray, dict[str, int]]:
    """Indices of the pool's frames that may be chosen, and how many are not and why."""
    from retemper.models import mace, predictions

    known = set(mace.elements(model))
    taken = near(pool, target, tolerance)
    left_out = dict.fromkeys(
        ("isolated atom", "repeated", "element unknown to the foundation", "in the target's data"), 0
    )
    seen: set[str] = set()
    candidates = []
    for i, atoms in enumerate(pool):
        identity = structure_hash(atoms)
        if is_isolated_atom(atoms):
            left_out["isolated atom"] += 1
        elif identity in seen:
            left_out["repeated"] += 1
        elif not set(atoms.numbers.tolist()) <= known:
            left_out["element unknown to the foundation"] += 1
        elif i in taken:
            left_out["in the target's data"] += 1
        elif labelled and not has_labels(atoms):
            raise RetemperError(
                f"{predictions.name_of(atoms, i)} of the replay pool has no labels.",
                expected=f"info {ENERGY!r} (eV) and array {FORCES!r} (eV/A) in every frame",
                fix="rename the keys in the pool's file",
            )
        else:
            candidates.append(i)
        seen.add(identity)
    return np.array(candidates, dtype=int), left_out


def has_labels(atoms: Atoms) -> bool:
    return ENERGY in atoms.info and FORCES in atoms.arrays


def _held_out(groups: Sequence[str], settings: Replay) -> np.ndarray:
    """[n] bool: which candidates are kept for validation: whole groups, about the share that is asked for."""
    sizes = Counter(groups)
    wanted = max(settings.valid, round(len(groups) * settings.valid / (settings.number + settings.valid)))
    order = np.random.default_rng(settings.seed).permutation(sorted(sizes))
    held: set[str] = set()
    number = 0
    for group in map(str, order):
        if number >= wanted:
            break
        if len(groups) - number - sizes[group] >= settings.number:
            held.add(group)
            number += sizes[group]
    if number < settings.valid:
        raise RetemperError(
            "The replay pool's groups cannot be divided into training and validation.",
            expected=f"groups with {settings.number} structures for training, others with {settings.valid} beside",
            got=f"{len(sizes)} group(s) of {min(sizes.values())} to {max(sizes.values())} structures",
            fix="give the pool's frames an info key 'group' (trajectory, molecule), or lower replay.number",
        )
    return np.array([group in held for group in groups])


def _draw(indices: np.ndarray, tiers: np.ndarray | None, number: int, rng: np.random.Generator) -> np.ndarray:
    """`number` of `indices` at random; with `tiers`, higher tiers before lower ones."""
    order = rng.permutation(len(indices))
    if tiers is not None:
        order = order[np.argsort(-tiers[order], kind="stable")]
    return indices[order[:number]]
