"""Splitting by groups so that related frames stay together, and the audit that nothing leaks.

How frames are grouped (``dataset.group``):

- an info key: frames with the same value are a group;
- ``composition``: frames of the same formula are a group;
- ``auto``: the first of `AUTO_KEYS` that at least nine tenths of the frames have and whose
  values make sense as groups (three or more, none above half of the frames, on average two
  frames or more each); else composition, where there are ten formulas or more and none has
  more than half of the frames; else blocks in time.

Blocks in time: the file order is taken as time. Each run of consecutive frames of one file
and one formula is cut into blocks of consecutive frames. Where blocks of different splits
touch, as many frames as the run needs to forget itself are set aside (`memory`); runs whose
neighbours are no more alike than any two frames (shuffled or well separated) need none.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from retemper.duplicates import near_pairs
from retemper.errors import RetemperError
from retemper.frames import structure_hash
from retemper.geometry import displacements
from retemper.labels import is_free_atom, reject

AUTO_KEYS = ("group", "trajectory", "traj", "traj_id", "name", "mol", "molecule", "source")
MIN_FRAMES = 5  # without isolated atoms and rejected frames
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Grouping:
    """Group of each frame, what made the groups, and gaps between blocks of one run.

    `runs` lists, for blocks in time, the frame indices of each run in order, with the
    number of frames to set aside where its blocks fall into different splits.
    """

    groups: list[str]
    rule: str
    runs: list[tuple[list[int], int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def group_frames(frames: Sequence[Atoms], group: str, valid: float, test: float) -> Grouping:
    """Group frames by the rules above; an unknown key is a `RetemperError` with the nearest."""
    if len(frames) < MIN_FRAMES:
        raise RetemperError(
            f"Only {len(frames)} frames are left to split into train, valid and test.",
            expected=f"at least {MIN_FRAMES} frames of more than one atom",
            fix="add labelled structures, or look into the reasons for rejected frames",
        )
    if group == "composition":
        return _by_composition(frames)
    if group != "auto":
        return _by_key(frames, group)
    for key in AUTO_KEYS:
        values = [_value(frame, key) for frame in frames]
        counts = Counter(value for value in values if value is not None)
        enough = sum(counts.values()) >= 0.9 * len(frames)
        if enough and 3 <= len(counts) <= len(frames) / 2 and max(counts.values()) <= len(frames) / 2:
            return _by_key(frames, key)
    formulas = Counter(frame.get_chemical_formula() for frame in frames)
    if len(formulas) >= 10 and max(formulas.values()) <= len(frames) / 2:
        return _by_composition(frames)
    return _by_blocks(frames, min(valid, test))


def _value(frame: Atoms, key: str) -> str | None:
    value = frame.info.get("source_given" if key == "source" else key)
    return None if value is None or str(value).strip() == "" else str(value)


def _by_composition(frames: Sequence[Atoms]) -> Grouping:
    return Grouping([f"formula {frame.get_chemical_formula()}" for frame in frames], "composition")


def _by_key(frames: Sequence[Atoms], key: str) -> Grouping:
    values = [_value(frame, key) for frame in frames]
    missing = sum(value is None for value in values)
    if missing == len(frames):
        keys = sorted({name for frame in frames for name in frame.info if not name.startswith("REF_")})
        raise RetemperError(
            f"No frame has the info key {key!r} of dataset.group.",
            expected=f"auto, composition, or one of {', '.join(keys)}",
            fix="edit dataset.group in params.yaml",
        )
    groups = [
        f"{key} {value}" if value is not None else f"formula {frame.get_chemical_formula()}"
        for value, frame in zip(values, frames, strict=True)
    ]
    warnings = [f"{missing} frames lack the info key {key!r}; they are grouped by composition"] if missing else []
    return Grouping(groups, f"info key {key}", [], warnings)


def _by_blocks(frames: Sequence[Atoms], share: float) -> Grouping:
    """Blocks of consecutive frames; runs under ten frames stay whole unless nothing else would be left."""
    runs: list[list[int]] = []
    previous = None
    for k, frame in enumerate(frames):
        file = str(frame.info["source"]).rpartition(":")[0]
        this = (file, frame.get_chemical_formula())
        if this == previous:
            runs[-1].append(k)
        else:
            runs.append([k])
        previous = this
    whole = sum(len(run) < 10 for run in runs)
    cut_short = whole == len(runs) and whole < 3
    groups = [""] * len(frames)
    gaps, warnings = [], []
    for number, run in enumerate(runs):
        length, gap = len(run), 0
        if len(run) >= 10:
            gap, forgets = memory([frames[k] for k in run])
            if not forgets:
                warnings.append(
                    f"the {len(run)} frames from {frames[run[0]].info['source']} on change slowly: blocks in different "
                    "splits stay alike; give trajectories a name and set dataset.group to its key"
                )
            length = max(round(len(run) * share / 2), 5 * gap, 1)
        elif cut_short:
            length = max(1, len(run) // MIN_FRAMES)
        blocks = max(1, len(run) // length)
        for block, part in enumerate(np.array_split(run, blocks)):
            for k in part:
                groups[k] = f"run {number} block {block}"
        gaps.append((run, gap))
    return Grouping(groups, "blocks in time", gaps, warnings)


def memory(run: Sequence[Atoms]) -> tuple[int, bool]:
    """Frames after which a run has forgotten where it was, and whether it ever does.

    The RMS displacement between frames `lag` apart grows with `lag` up to what two
    unrelated frames have. The answer is the least lag that reaches 70 % of its median over
    lags from a third of the run on, or a twentieth of the run at most.

    Parameters
    ----------
    run
        At least ten consecutive frames of one formula. Frames whose atoms are in another
        order than the first one's are left out.
    """
    same = [frame for frame in run if (frame.numbers == run[0].numbers).all() and (frame.pbc == run[0].pbc).all()]
    if len(same) < 10:
        return 0, True
    step = max(1, len(same) // 400)
    positions = np.array([frame.positions for frame in same])
    cells = np.array([frame.cell.array for frame in same])

    def moved(lag: int) -> float:
        first = np.arange(0, len(same) - lag, step)[:60]
        movement, _ = displacements(positions, cells, same[0].pbc, first, first + lag)
        return float(np.median(np.sqrt((movement**2).sum(axis=2).mean(axis=1))))

    far = float(np.median([moved(lag) for lag in np.linspace(len(same) / 3, len(same) * 0.6, 5).astype(int)]))
    most = max(1, len(same) // 20)
    for lag in range(1, most + 1):
        if moved(lag) >= 0.7 * far:
            return lag - 1, True
    return most, False


def _rank(seed: int, name: str) -> str:
    """A random order of names that stays when others are added."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def split(grouping: Grouping, valid: float, test: float, seed: int) -> list[str]:
    """Split of each frame: ``train``, ``valid``, ``test``, or ``gap`` for frames set aside between blocks.

    Whole groups are drawn in an order given by the hash of seed and name, first for test,
    then for valid, as long as they bring the share nearer to what was asked. A group keeps
    its place in that order when data are added.

    Raises
    ------
    RetemperError
        Fewer than three groups, or a group so large that no training frames are left.
    """
    sizes = Counter(grouping.groups)
    if len(sizes) < 3:
        raise RetemperError(
            f"The frames make only {len(sizes)} group(s) by {grouping.rule}: they cannot be split into three.",
            expected="at least three groups",
            fix="set dataset.group to an info key with more values, or to auto",
        )
    order = sorted(sizes, key=lambda name: _rank(seed, name))
    place: dict[str, str] = {}
    for name, share in (("test", test), ("valid", valid)):
        target, filled = share * len(grouping.groups), 0
        for group in order:
            if group not in place and abs(filled + sizes[group] - target) < abs(filled - target):
                place[group] = name
                filled += sizes[group]
        if filled == 0:
            smallest = min((group for group in order if group not in place), key=lambda group: sizes[group])
            place[smallest] = name
    result = [place.get(group, "train") for group in grouping.groups]
    if "train" not in result:
        raise RetemperError(
            "No group is left for training.",
            got=f"{len(sizes)} groups by {grouping.rule}, the largest with {max(sizes.values())} frames",
            fix="lower dataset.valid and dataset.test, or choose another dataset.group",
        )
    for run, gap in grouping.runs:
        before = [result[k] for k in run]
        for position in range(1, len(run)):
            if before[position] != before[position - 1] and gap:
                _set_aside(result, run, before, position, gap)
    return result


def _set_aside(result: list[str], run: list[int], before: list[str], position: int, gap: int) -> None:
    """Mark `gap` frames at a border as such, on the training side where there is one."""
    after = before[position] == "train" or before[position - 1] != "train"
    for k in run[position : position + gap] if after else run[max(0, position - gap) : position]:
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


def leaks(a: Sequence[Atoms], b: Sequence[Atoms], tolerance: float, groups: bool = True) -> list[dict[str, str]]:
    """What two sets of structures share that they must not share.

    Parameters
    ----------
    a, b
        Sets of frames. Free atoms are left out: every set may have the same.
    tolerance
        RMS displacement in A within which two frames are the same, see
        `retemper.duplicates.near_pairs`.
    groups
        Whether a common ``info["group"]`` counts, for sets that were grouped together.

    Returns
    -------
    list of dict
        One entry a pair or group: ``kind`` (same structure, near duplicate, shared group),
        ``a`` and ``b`` (sources or indices, or the group).
    """
    left = [frame for frame in a if not is_free_atom(frame)]
    right = [frame for frame in b if not is_free_atom(frame)]

    def name(frames: Sequence[Atoms], k: int) -> str:
        return str(frames[k].info.get("source", k))

    found = []
    for i, j in near_pairs([*left, *right], tolerance):
        if i < len(left) <= j:
            same = structure_hash(left[i]) == structure_hash(right[j - len(left)])
            kind = "same structure" if same else "near duplicate"
            found.append({"kind": kind, "a": name(left, i), "b": name(right, j - len(left))})
    if groups:
        shared = {frame.info.get("group") for frame in left} & {frame.info.get("group") for frame in right} - {None}
        found += [{"kind": "shared group", "a": str(group), "b": str(group)} for group in sorted(map(str, shared))]
    return found


def require_no_leaks(sets: Mapping[str, Sequence[Atoms]], tolerance: float) -> dict[str, int]:
    """Audit all pairs of named sets; returns how many comparisons found nothing, any leak raises."""
    names = list(sets)
    checked = {}
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            found = leaks(sets[first], sets[second], tolerance)
            if found:
                examples = "; ".join(f"{leak['kind']}: {leak['a']} and {leak['b']}" for leak in found[:3])
                raise RetemperError(
                    f"{len(found)} leak(s) between {first} and {second}.",
                    expected="no structure, near duplicate or group in both",
                    got=examples,
                    fix="choose dataset.group so that related frames share a group",
                )
            checked[f"{first}/{second}"] = len(found)
    return checked


def set_aside_gaps(frames: Sequence[Atoms], places: Sequence[str]) -> list[Atoms]:
    """Frames that `split` put into gaps, with their reason."""
    reason = "gap: too near in time to a block of another split"
    return [reject(frame, reason) for frame, place in zip(frames, places, strict=True) if place == "gap"]
