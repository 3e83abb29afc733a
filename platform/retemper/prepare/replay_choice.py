"""Which structures of the pools are replayed: what may be chosen, disjoint groups for validation, the choice itself."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.config.settings import Replay
from retemper.core.errors import RetemperError
from retemper.core.output import log
from retemper.data import selection
from retemper.data.frames import ENERGY, FORCES, elements, is_isolated_atom
from retemper.data.grouping import name_of
from retemper.prepare.overlap import NEAR, near, repeats
from retemper.records.replay import Coverage

Array = np.ndarray
IN_TARGET = "in the target's data"  # why a structure is left out
KEPT_SEED = 0  # of the structures that are kept apart: the same for every replay.seed
KEPT_MOST, KEPT_SHARE = 200, 5  # structures that are kept apart at most, and one of how many


@dataclass(frozen=True)
class Candidates:
    """Structures of all pools that may be chosen."""

    frames: Sequence[Atoms]  # of all pools, one pool after the other
    pools: Array  # [n_frames] pool of each frame
    indices: Array  # of the candidates
    left_out: dict[str, int]  # of the others by reason
    repeats: dict[int, int]  # frames that repeat an earlier one, and that


@dataclass(frozen=True)
class Choice:
    """Indices into the frames, and what there is to say about how they came about."""

    train: Array
    valid: Array
    left_out: dict[str, int]  # structures by reason
    candidates: int
    groups_for_validation: int
    coverage: Coverage | None


def group_of(atoms: Atoms) -> str:
    """The group that keeps a frame and its relatives on one side of a split."""
    group = atoms.info.get("group")
    return str(atoms.symbols) if group is None or str(group).strip() == "" else name_of(group)


def has_labels(atoms: Atoms) -> bool:
    """Whether a frame has energy and forces."""
    return ENERGY in atoms.info and FORCES in atoms.arrays


def candidates(
    pools: Sequence[Sequence[Atoms]], model: str | Path, target: Sequence[Atoms] = (), tolerance: float = NEAR
) -> Candidates:
    """Structures of `pools` but isolated atoms, those with elements that `model` lacks, `target`'s, and repeated ones.

    Structures are the same within `tolerance` (A). Of those of two pools the one of the first pool stays.
    """
    from retemper.models import mace

    frames = [atoms for pool in pools for atoms in pool]
    owner = np.repeat(np.arange(len(pools)), list(map(len, pools)))
    known, taken = set(mace.elements(model)), near(frames, target, tolerance)
    before = repeats(frames, tolerance)
    left_out = dict.fromkeys(
        ("isolated atom", "repeated", "repeats another pool", "element unknown to the foundation", IN_TARGET), 0
    )
    indices = []
    for i, atoms in enumerate(frames):
        if is_isolated_atom(atoms):
            left_out["isolated atom"] += 1
        elif i in before:
            left_out["repeated" if owner[before[i]] == owner[i] else "repeats another pool"] += 1
        elif not set(atoms.numbers.tolist()) <= known:
            left_out["element unknown to the foundation"] += 1
        elif i in taken:
            left_out[IN_TARGET] += 1
        else:
            indices.append(i)
    return Candidates(frames, owner, np.array(indices, dtype=int), left_out, before)


# ------------------------------------------------------------------ shares


@dataclass(frozen=True)
class Parts:
    """Pools with a share are a part each, all others together one; how many structures are chosen of each."""

    of_pool: list[int]  # part of each pool
    train: list[int]
    valid: list[int]
    names: list[str]


def parts_of(settings: Replay) -> Parts:
    """The parts of ``replay.pools``; numbers are rounded so that each share gets one at least."""
    pools = settings.pools
    shared = [k for k, pool in enumerate(pools) if pool.share is not None]
    free = [k for k in range(len(pools)) if k not in shared]
    shares = [float(pools[k].share or 0.0) for k in shared]
    names = [pools[k].pool for k in shared]
    if free:
        shares.append(1 - sum(shares))
        names.append(", ".join(pools[k].pool for k in free))
    of_pool = [shared.index(k) if k in shared else len(shared) for k in range(len(pools))]
    return Parts(of_pool, _divide(settings.number, shares), _divide(settings.valid, shares), names)


def _divide(number: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `number`, by the largest remainders."""
    exact = number * np.array(shares)
    whole = np.floor(exact + 1e-9).astype(int)
    for k in np.argsort(whole - exact, kind="stable")[: number - whole.sum()]:
        whole[k] += 1
    return [int(n) for n in whole]


# ------------------------------------------------------------------ the choice


def keep_apart(offered: Candidates, eligible: Sequence[int], settings: Replay) -> Array:
    """Indices of whole groups of the pools `eligible` that are kept apart, to measure what is forgotten.

    At most `KEPT_MOST` structures, and one of `KEPT_SHARE` of those pools; each part of the pools keeps what is to be
    chosen from it. Empty where no group is small enough.
    """
    from_pools = offered.indices[np.isin(offered.pools[offered.indices], list(eligible))]
    wanted = min(KEPT_MOST, len(from_pools) // KEPT_SHARE)
    parts = parts_of(settings)
    spare = np.bincount(np.array(parts.of_pool)[offered.pools[offered.indices]], minlength=len(parts.names))
    spare = spare - np.array(parts.train) - np.array(parts.valid)
    members: dict[str, list[int]] = defaultdict(list)
    for i in offered.indices:
        members[group_of(offered.frames[i])].append(int(i))
    retained: list[int] = []
    for group in np.random.default_rng(KEPT_SEED).permutation(
        sorted({group_of(offered.frames[i]) for i in from_pools})
    ):
        indices = members[str(group)]
        cost = np.bincount(np.array(parts.of_pool)[offered.pools[indices]], minlength=len(parts.names))
        if len(retained) + len(indices) <= wanted and (cost <= spare).all():
            retained += indices
            spare = spare - cost
    return np.sort(np.array(retained, dtype=int))


def choose(
    offered: Candidates,
    settings: Replay,
    *,
    model: str | Path,
    head: str | None = None,
    device: str = "cpu",
    target: Sequence[Atoms] = (),
    progress: bool = True,
) -> Choice:
    """Pick ``settings.number`` training and ``settings.valid`` validation structures, of each pool its share.

    A random share of the groups is kept for validation, whose structures are drawn from it at random, so that they
    measure the pools as they are. Training structures come from the other groups:

    - "farthest-point": farthest-point sampling on the foundation's mean descriptors, over all pools together;
    - "random": at random;
    - "elements": at random among the structures whose elements are all among those of `target`;
      where they are fewer than needed, all of them, filled up with structures that share at
      least one element with it.

    Raises
    ------
    RetemperError
        Too few candidates or groups, in all or for a pool's share.
    """
    frames, indices, left_out = offered.frames, offered.indices, dict(offered.left_out)
    tiers = np.zeros(len(indices), dtype=int)
    if settings.select == "elements":
        tiers = selection.element_match([frames[i] for i in indices], elements(target))
        left_out["shares no element with the target"] = int((tiers == 0).sum())
        indices, tiers = indices[tiers > 0], tiers[tiers > 0]
    parts = parts_of(settings)
    part = np.array(parts.of_pool)[offered.pools[indices]] if len(indices) else np.zeros(0, dtype=int)
    for k, name in enumerate(parts.names):
        need, offer = parts.train[k] + parts.valid[k], int((part == k).sum())
        if offer < need:
            raise RetemperError(
                f"Too few structures to replay of {name} for select: {settings.select}.",
                expected=f"at least {need} ({parts.train[k]} for training, {parts.valid[k]} for validation)",
                got=f"{offer}; left out of {len(frames)}: "
                + (", ".join(f"{n} ({why})" for why, n in left_out.items() if n) or "none"),
                fix="lower replay.number, replay.valid or the share, choose another replay.select, or give more pools",
            )
    held = _held_out([group_of(frames[i]) for i in indices], part, parts, settings)
    rng = np.random.default_rng(settings.seed)
    coverage = None
    rest, rest_part = indices[~held], part[~held]
    if progress:
        log.info(f"replay: {settings.select} choice of {settings.number} of {len(rest)} structures")
    if settings.select == "farthest-point":
        from retemper.models.descriptors import mean_descriptors

        points = mean_descriptors(model, [frames[i] for i in rest], head=head, device=device, progress=progress)
        picked = selection.farthest_point(points, settings.number, parts=rest_part, most=parts.train)
        at_random = selection.random(len(rest), settings.number, settings.seed)
        coverage = Coverage(
            radius=selection.coverage_radius(points, picked),
            radius_random=selection.coverage_radius(points, at_random),
        )
        train = rest[picked]
    else:
        train = _draw(rest, tiers[~held], rest_part, parts.train, rng)
    valid = _draw(indices[held], tiers[held], part[held], parts.valid, rng)
    groups = len({group_of(frames[i]) for i in indices[held]})
    return Choice(train, valid, left_out, len(indices), groups, coverage)


def _held_out(groups: Sequence[str], part: Array, parts: Parts, settings: Replay) -> Array:
    """[n] bool: which candidates are kept for validation: whole groups, about the share that is asked for."""
    n = len(parts.names)
    total = np.bincount(part, minlength=n)
    train, valid = np.array(parts.train), np.array(parts.valid)
    wanted = np.maximum(valid, np.round(total * valid / np.maximum(train + valid, 1))).astype(int)
    sizes: dict[str, Array] = defaultdict(lambda: np.zeros(n, dtype=int))
    for group, k in zip(groups, part, strict=True):
        sizes[group][k] += 1
    order = np.random.default_rng(settings.seed).permutation(sorted(sizes))
    held: set[str] = set()
    number = np.zeros(n, dtype=int)
    for group in map(str, order):
        size = sizes[group]
        if (size[number < wanted] > 0).any() and (total - number - size >= train)[size > 0].all():
            held.add(group)
            number = number + size
    if (number < valid).any():
        k = int(np.argmax(valid - number))
        counts = Counter(group for group, index in zip(groups, part, strict=True) if index == k)
        raise RetemperError(
            f"The groups of {parts.names[k]} cannot be divided into training and validation.",
            expected=f"groups with {train[k]} structures for training, others with {valid[k]} beside",
            got=f"{len(counts)} group(s) of {min(counts.values())} to {max(counts.values())} structures",
            fix="give the pool's frames an info key 'group' (trajectory, molecule), or lower replay.number",
        )
    return np.array([group in held for group in groups])


def _draw(indices: Array, tiers: Array, part: Array, numbers: Sequence[int], rng: np.random.Generator) -> Array:
    """Of each part its number of `indices` at random, in random order; higher tiers before lower ones."""
    order = rng.permutation(len(indices))
    order = order[np.argsort(-tiers[order], kind="stable")]
    place = np.concatenate([np.flatnonzero(part[order] == k)[:number] for k, number in enumerate(numbers)])
    return np.asarray(indices[order[np.sort(place)]])
