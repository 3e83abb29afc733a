"""Splitting whole groups into train, valid and test, nested training subsets, and the audit that nothing leaks."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from ase import Atoms

from retemper.core.errors import RetemperError
from retemper.data.duplicates import near_pairs
from retemper.data.frame_store import Chain, Picked
from retemper.data.frames import structure_hash
from retemper.data.grouping import Grouping, name_of
from retemper.data.labels import is_free_atom

SPLITS = ("train", "valid", "test")
GAP = "gap: too near in time to a block of another split"


def _rank(seed: int, name: str) -> str:
    """A random order of names that stays when others are added."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def split(grouping: Grouping, valid: float, test: float, seed: int) -> list[str]:
    """Choose the split of each frame: ``train``, ``valid``, ``test``, or ``gap`` for frames set aside between blocks.

    Groups are drawn whole, in an order given by the hash of seed and name, so that a group
    keeps its place when data are added. Test comes first, then valid. Groups of up to a third
    of the share are taken until it is full, so that held-out frames are diverse; where that
    does not fill it, larger ones as long as they bring the share nearer (by ratio). A share of
    0 draws no such set.

    Raises
    ------
    RetemperError
        Fewer groups than sets, or a group so large that no training frames are left.
    """
    sizes = Counter(grouping.groups)
    shares = [(name, share) for name, share in (("test", test), ("valid", valid)) if share]
    if len(sizes) <= len(shares):
        raise RetemperError(
            f"The frames make only {len(sizes)} group(s) by {grouping.rule}: they cannot be split into "
            f"{len(shares) + 1}.",
            expected=f"at least {len(shares) + 1} groups",
            fix="set dataset.group to an info key with more values, or to auto",
        )
    order = sorted(sizes, key=lambda name: _rank(seed, name))
    place: dict[str, str] = {}
    for name, share in shares:
        target = share * len(grouping.groups)
        filled = 0
        for group in order:
            if group not in place and sizes[group] <= target / 3 and filled + sizes[group] <= target:
                place[group] = name
                filled += sizes[group]
        if not filled:
            nearest = min((g for g in order if g not in place), key=lambda g: abs(math.log(sizes[g] / target)))
            place[nearest] = name
            filled = sizes[nearest]
        for group in order:
            grown = filled + sizes[group]
            if group not in place and abs(math.log(grown / target)) < abs(math.log(filled / target)):
                place[group] = name
                filled = grown
    result = [place.get(group, "train") for group in grouping.groups]
    if "train" not in result:
        raise RetemperError(
            "No group is left for training.",
            got=f"{len(sizes)} groups by {grouping.rule}, the largest with {max(sizes.values())} frames",
            fix="lower dataset.valid and dataset.test, or choose another dataset.group",
        )
    for run, gap in grouping.runs:
        initial = [result[k] for k in run]
        for position in range(1, len(run)):
            if initial[position] != initial[position - 1] and gap:
                _set_aside(result, run, initial, position, gap)
    return result


def _set_aside(result: list[str], run: list[int], initial: list[str], position: int, gap: int) -> None:
    """Mark `gap` frames at a border as such, on the training side where there is one."""
    forward = initial[position] == "train" or initial[position - 1] != "train"
    for k in run[position : position + gap] if forward else run[max(0, position - gap) : position]:
        result[k] = "gap"


def nested_order(groups: Sequence[str], seed: int) -> list[int]:
    """Order of training frames of which any beginning is a sound smaller training set.

    One frame of every group comes before the second of any; within a group, frames far apart
    in time come first (the van der Corput sequence). Beginnings of different length are nested.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for k, group in enumerate(groups):
        members[group].append(k)
    names = sorted(members, key=lambda name: _rank(seed, name))
    spread = {name: [members[name][k] for k in _van_der_corput(len(members[name]))] for name in names}
    order = []
    for turn in range(max(map(len, spread.values()), default=0)):
        order += [spread[name][turn] for name in names if turn < len(spread[name])]
    return order


def _van_der_corput(number: int) -> list[int]:
    """0 .. number-1 by reversed bits: 0, then the middle, the quarters, and so on."""
    bits = max(1, (number - 1).bit_length())
    return [k for k in (int(f"{i:0{bits}b}"[::-1], 2) for i in range(2**bits)) if k < number]


def uncharged(frames: Sequence[Atoms]) -> list[Atoms]:
    """Structures without labels, charge and spin, with their group and source: an ion and its neutral twin are one."""
    return [
        Atoms(
            frame.numbers,
            frame.positions,
            cell=frame.cell,
            pbc=frame.pbc,
            info={key: frame.info[key] for key in ("group", "source", "config_type") if key in frame.info},
        )
        for frame in frames
    ]


def leaks(a: Sequence[Atoms], b: Sequence[Atoms], tolerance: float, groups: bool = True) -> list[dict[str, str]]:
    """What two sets of structures share that they must not share. Charge and spin do not count.

    Parameters
    ----------
    a, b
        Sets of frames. Free atoms are left out: every set may have the same.
    tolerance
        RMS displacement in A within which two frames are the same, see
        `retemper.data.duplicates.near_pairs`.
    groups
        Whether a common ``info["group"]`` counts, for sets that were grouped together.

    Returns
    -------
    list of dict
        One entry a pair or group: ``kind`` (same structure, near duplicate, shared group),
        ``a`` and ``b`` (sources or indices, or the group).
    """
    shared = _leaks_between({"a": uncharged(a), "b": uncharged(b)}, tolerance, groups)
    return [{key: leak[key] for key in ("kind", "a", "b")} for leak in shared]


def _leaks_between(sets: Mapping[str, Sequence[Atoms]], tolerance: float, groups: bool) -> list[dict[str, str]]:
    """Leaks between all pairs of named sets, with the names as ``sets``."""
    all_frames = Chain(sets.values())
    names = np.repeat(np.arange(len(sets)), [len(part) for part in sets.values()])
    indices: list[int] = []
    holders: dict[str, set[str]] = defaultdict(set)
    for k, frame in enumerate(all_frames):
        if not is_free_atom(frame):
            indices.append(k)
            if groups and "group" in frame.info:
                holders[name_of(frame.info["group"])].add(list(sets)[names[k]])
    frames, owner = Picked(all_frames, indices), names[indices]
    entries = []
    for i, j in near_pairs(frames, tolerance):
        if owner[i] != owner[j]:
            first, second = frames[i], frames[j]
            kind = "same structure" if structure_hash(first) == structure_hash(second) else "near duplicate"
            between = " and ".join(list(sets)[owner[k]] for k in (i, j))
            entries.append({"kind": kind, "a": _name(first, i), "b": _name(second, j), "sets": between})
    for group, holder_names in sorted(holders.items()):
        if len(holder_names) > 1:
            entries.append({"kind": "shared group", "a": group, "b": group, "sets": " and ".join(sorted(holder_names))})
    return entries


def _name(frame: Atoms, index: int) -> str:
    return str(frame.info.get("source", index))


def require_no_leaks(sets: Mapping[str, Sequence[Atoms]], tolerance: float) -> list[str]:
    """Audit all pairs of named sets; any leak raises. Returns which pairs were audited."""
    shared = _leaks_between(sets, tolerance, groups=True)
    if shared:
        raise RetemperError(
            f"{len(shared)} leak(s) between {', '.join(sorted({leak['sets'] for leak in shared}))}.",
            expected="no structure, near duplicate or group in two sets",
            got="; ".join(f"{leak['kind']}: {leak['a']} and {leak['b']}" for leak in shared[:3]),
            fix="choose dataset.group so that related frames share a group",
        )
    return [f"{first}/{second}" for first, second in combinations(sets, 2)]
