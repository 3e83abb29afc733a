"""Which frames belong together, so that no split tears related frames apart (``dataset.group``).

- an info key: frames with the same value are a group;
- ``composition``: frames of the same formula are a group;
- ``auto``: the first that makes sense of
  1. an info key of `AUTO_KEYS` with ten values or more,
  2. composition, where there are ten formulas or more,
  3. an info key of `AUTO_KEYS` with three values or more,
  4. blocks in time.
  A key makes sense when nine tenths of the frames have it and its values repeat (two frames a
  value on average); a rule makes sense when no group has more than half of the frames and
  whole groups can come near the shares asked for.

Blocks in time: the file order is taken as time. A run is a stretch of consecutive frames of
one file with the same atoms in the same order; it ends where a slowly moving run jumps (a new trajectory). A run
that does not forget where it was stays whole if it is short; any other is cut into blocks of
consecutive frames. Where blocks of different splits touch, as many frames are set aside as
the run needs to forget (`memory`): none for frames that are shuffled or well apart. Blocks
that hold frames within 0.1 A of each other, wherever in the file, are joined as long as the
result is no larger than a held-out share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from retemper.core.errors import RetemperError
from retemper.data.frame_store import Picked
from retemper.data.geometry import Coordinates, by_atoms, displacements

Array = np.ndarray
AUTO_KEYS = ("group", "trajectory", "traj", "traj_id", "name", "mol", "molecule", "source")
MIN_FRAMES = 5  # without isolated atoms and rejected frames
MIN_RUN = 10  # shorter runs stay whole
RELATED = 0.1  # A, RMS displacement between frames that should not be on either side of a split
LISTED = 40  # keys that a message names
HELD = 500_000  # atoms of a run up to which its frames are held in memory
MAX_WORK = 2e7  # displacements of atoms that the search for relatives computes for frames with the same atoms


@dataclass(frozen=True)
class Grouping:
    """Group of each frame, the rule that made them, and the borders between blocks in time.

    `runs` lists the frame indices of each run in order, with the number of frames to set
    aside where its blocks fall into different splits.
    """

    groups: list[str]
    rule: str
    runs: list[tuple[list[int], int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def group_frames(frames: Sequence[Atoms], group: str, valid: float, test: float) -> Grouping:
    """Group frames by the rules above.

    Parameters
    ----------
    frames
        Sound frames in file order, with ``info["source"]`` as file:index where they come from files.
    group
        ``dataset.group``.
    valid, test
        Shares asked for.

    Raises
    ------
    RetemperError
        Too few frames, or an unknown key (the keys that exist are listed).
    """
    if len(frames) < MIN_FRAMES:
        raise RetemperError(
            f"Only {len(frames)} frame(s) are left to split into train, valid and test.",
            expected=f"at least {MIN_FRAMES} frames of more than one atom",
            fix="add labelled structures, or look into the reasons for rejected frames",
        )
    if group == "composition":
        return _by_composition(_formulas(frames))
    if group != "auto":
        table = _Table.of(frames, [group])
        if table.missing(group) == len(frames):
            raise _unknown_key(frames, group)
        return _by_key(table, group)
    table = _Table.of(frames, AUTO_KEYS)
    by_key = [_by_key(table, key) for key in AUTO_KEYS if table.repeats(key)]
    formulas = _by_composition(table.formulas)
    for grouping, fewest in [*((k, 10) for k in by_key), (formulas, 10), *((k, 3) for k in by_key)]:
        if len(set(grouping.groups)) >= fewest and _sensible(grouping, min(valid, test)):
            return grouping
    return _by_blocks(frames, min(valid, test))


def groups_of(frames: Sequence[Atoms]) -> list[str]:
    """Group of each frame of a set that is not to be split: the info key ``group``, else the rules of ``auto``.

    Frames of fewer than `MIN_FRAMES` that have no such key count alone.
    """
    values = [_value(frame, "group") for frame in frames]
    present = [value for value in values if value is not None]
    if len(present) == len(frames):
        return present
    if len(frames) < MIN_FRAMES:
        return [str(k) for k in range(len(frames))]
    return group_frames(frames, "auto", 0.1, 0.1).groups


@dataclass(frozen=True)
class _Table:
    """What grouping asks of each frame, read once; equal values are one object."""

    formulas: list[str]
    values: dict[str, list[str | None]]  # by info key

    @classmethod
    def of(cls, frames: Sequence[Atoms], keys: Sequence[str]) -> _Table:
        interned: dict[str, str] = {}
        formulas: list[str] = []
        values: dict[str, list[str | None]] = {key: [] for key in keys}
        for frame in frames:
            formula = frame.get_chemical_formula()
            formulas.append(interned.setdefault(formula, formula))
            for key, column in values.items():
                value = _value(frame, key)
                column.append(None if value is None else interned.setdefault(value, value))
        return cls(formulas, values)

    def missing(self, key: str) -> int:
        """Frames without a value of `key`."""
        return self.values[key].count(None)

    def repeats(self, key: str) -> bool:
        """Whether nine tenths of the frames have `key`, two frames a value on average."""
        total, missing = len(self.formulas), self.missing(key)
        different = len(set(self.values[key])) - bool(missing)
        return total - missing >= 0.9 * total and different <= total / 2


def _formulas(frames: Sequence[Atoms]) -> list[str]:
    return _Table.of(frames, []).formulas


def _value(frame: Atoms, key: str) -> str | None:
    value = frame.info.get("source_given" if key == "source" else key)
    return None if value is None or str(value).strip() == "" else name_of(value)


def name_of(value: object) -> str:
    """A group's name: numbers that are equal have one, however they are written (1, 1.0, "1", 1e0)."""
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number) or isinstance(value, bool | np.bool_):
        return text
    return str(int(number)) if number == int(number) else repr(number)


def _sensible(grouping: Grouping, share: float) -> bool:
    """No group above half, and the two smallest are not far above a held-out share."""
    sizes = sorted(Counter(grouping.groups).values())
    total = sum(sizes)
    return sizes[-1] <= total / 2 and sizes[1] <= 2.5 * share * total


def _by_composition(formulas: Sequence[str]) -> Grouping:
    name = {formula: f"formula {formula}" for formula in set(formulas)}
    return Grouping([name[formula] for formula in formulas], "composition")


def _by_key(table: _Table, key: str) -> Grouping:
    values = table.values[key]
    name = {value: f"{key} {value}" for value in set(values) if value is not None}
    by_formula = {formula: f"formula {formula}" for formula in set(table.formulas)}
    groups = [
        name[value] if value is not None else by_formula[formula]
        for value, formula in zip(values, table.formulas, strict=True)
    ]
    missing = table.missing(key)
    warnings = [f"{missing} frame(s) lack the info key {key!r}; they are grouped by composition"] if missing else []
    return Grouping(groups, f"info key {key}", [], warnings)


def _unknown_key(frames: Sequence[Atoms], key: str) -> RetemperError:
    keys = sorted({name for frame in frames for name in frame.info if not name.startswith("REF_")})
    return RetemperError(
        f"No frame has the info key {key!r} of dataset.group.",
        expected=f"auto, composition, or one of {', '.join(key[:60] for key in keys[:LISTED])}",
        fix="edit dataset.group in params.yaml",
    )


def _by_blocks(frames: Sequence[Atoms], share: float) -> Grouping:
    longest = max(1, round(2 * share * len(frames)))  # a slow run up to this size stays whole
    runs = _trajectories(frames)
    only_short = all(len(run) < MIN_RUN for run in runs) and len(runs) < 3
    groups = [""] * len(frames)
    gaps, warnings = [], []
    for number, run in enumerate(runs):
        length, gap = len(run), 0
        if len(run) >= MIN_RUN:
            gap, forgets = memory(Picked(frames, run))
            if forgets or len(run) > longest:
                length = max(round(len(run) * share / 3), 5 * gap, 1)
            if not forgets and len(run) > longest:
                first = frames[run[0]].info.get("source", run[0])
                warnings.append(
                    f"the {len(run)} frames from {first} on change slowly: blocks in different "
                    "splits stay alike; name trajectories in an info key and set dataset.group to it"
                )
        elif only_short:
            length = max(1, len(run) // MIN_FRAMES)
        for block, part in enumerate(np.array_split(run, max(1, len(run) // length))):
            for k in part:
                groups[k] = f"run {number} block {block}"
        gaps.append((run, gap))
    return Grouping(_join_relatives(frames, groups, share), "blocks in time", gaps, warnings)


def _trajectories(frames: Sequence[Atoms]) -> list[list[int]]:
    """Indices of each run: consecutive frames of one file with the same atoms in one order, without jumps."""
    runs: list[list[int]] = []
    previous = None
    for k, frame in enumerate(frames):
        identity = (str(frame.info.get("source", "")).rpartition(":")[0], frame.numbers.tobytes())
        if identity == previous:
            runs[-1].append(k)
        else:
            runs.append([k])
        previous = identity
    return [part for run in runs for part in _cut_at_jumps(Picked(frames, run), run)]


def _cut_at_jumps(frames: Sequence[Atoms], run: list[int]) -> list[list[int]]:
    if len(run) < MIN_RUN:
        return [run]
    track = _Track(frames)
    steps = track.rms(np.arange(len(run) - 1), np.arange(1, len(run)))
    far = track.far()
    if np.median(steps) >= 0.5 * far:
        return [run]
    cuts = np.flatnonzero(steps > 0.7 * far) + 1
    return [[int(k) for k in part] for part in np.split(np.array(run), cuts)]


class _Track:
    """Positions and cells of frames with the same atoms, to measure how far they lie from each other."""

    def __init__(self, frames: Sequence[Atoms]):
        self.frames = list(frames) if len(frames) * len(frames[0]) <= HELD else frames
        self.pbc = frames[0].pbc

    def rms(self, first: Array, second: Array) -> Array:
        """RMS displacement between frames `first` and `second` [n_pairs], A."""
        parts = [np.zeros(0)]
        for pairs in np.array_split(np.stack([first, second]), 1 + len(first) * len(self.frames[0]) // 200_000, axis=1):
            if not pairs.size:
                continue
            indices, places = np.unique(pairs, return_inverse=True)
            coordinates = Coordinates.of(Picked(self.frames, indices))
            movement, _ = displacements(
                coordinates.positions, coordinates.cells, self.pbc, *places.reshape(pairs.shape)
            )
            parts.append(np.sqrt((movement**2).sum(axis=2).mean(axis=1)))
        return np.concatenate(parts)

    def at_lag(self, lag: int) -> float:
        """Median over at most 60 pairs of frames `lag` apart."""
        first = np.unique(np.linspace(0, len(self.frames) - lag - 1, 60).astype(int))
        return float(np.median(self.rms(first, first + lag)))

    def far(self) -> float:
        """Median over lags from a third of the frames on: what two unrelated frames have."""
        number = len(self.frames)
        return float(np.median([self.at_lag(int(lag)) for lag in np.linspace(number / 3, number * 0.6, 5)]))


def memory(run: Sequence[Atoms]) -> tuple[int, bool]:
    """Frames after which a run has forgotten where it was, and whether it ever does.

    The RMS displacement between frames `lag` apart grows with `lag` up to what two unrelated
    frames have. The least lag that reaches half of that, less one, is the answer; it is
    sought up to a twentieth of the run.

    Parameters
    ----------
    run
        At least ten consecutive frames with the same atoms in the same order.
    """
    track = _Track(run)
    far = track.far()
    longest = max(1, len(run) // 20)
    for lag in range(1, longest + 1):
        if track.at_lag(lag) >= 0.5 * far:
            return lag - 1, True
    return longest, False


def _join_relatives(frames: Sequence[Atoms], groups: list[str], share: float) -> list[str]:
    """Give groups that hold frames within `RELATED` one name, closest first, up to `share` of all frames."""
    pairs = []
    for indices in by_atoms(frames, state=False):
        if len(indices) < 2 or len(indices) ** 2 * len(frames[indices[0]]) / 2 > MAX_WORK:
            continue
        members = [frames[k] for k in indices]
        track, cells = _Track(members), Coordinates.of(members).cells
        first, second = np.triu_indices(len(indices), 1)
        close = np.abs(cells[first] - cells[second]).max(axis=(1, 2)) < RELATED
        first, second = first[close], second[close]
        rms = track.rms(first, second)
        pairs += [(float(rms[k]), indices[first[k]], indices[second[k]]) for k in np.flatnonzero(rms < RELATED)]
    size = Counter(groups)
    name = {group: group for group in size}
    for _, i, j in sorted(pairs):
        a, b = name[groups[i]], name[groups[j]]
        if a != b and size[a] + size[b] <= share * len(frames):
            size[a] += size.pop(b)
            name = {group: a if current == b else current for group, current in name.items()}
    return [name[group] for group in groups]
