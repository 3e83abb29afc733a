"""Labelled rounds as part of the data set: checked like it, kept off the test set, beyond ``dataset.max_train``.

The sets of the raw data stay what they are without rounds. A structure goes where the one it
descends from is: to the validation set if its start was there, else to training. What descends
from none (random search) is drawn by the name of its group, ``dataset.valid`` of it for validation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ase import Atoms

from retemper.config.project import Project
from retemper.config.settings import Dataset, Keys
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import sha256
from retemper.data import checks, rounds
from retemper.data.duplicates import near_pairs
from retemper.data.frame_store import Chain
from retemper.data.grouping import name_of
from retemper.data.labels import Mapped, map_labels, reject
from retemper.prepare.manifest import reasons
from retemper.records.dataset import JoinedRound

Sets = Mapping[str, Sequence[Atoms]]


@dataclass
class Joined:
    """What rounds add to the sets."""

    train: list[Atoms] = field(default_factory=list)
    valid: list[Atoms] = field(default_factory=list)
    rejected: list[Atoms] = field(default_factory=list)  # with info["reason"]
    rounds: list[JoinedRound] = field(default_factory=list)


def join(sets: Sets, project: Project, allowed: Collection[str]) -> Joined:
    """Sort the structures of ``data/rounds`` in.

    Parameters
    ----------
    sets
        train, valid and test of the raw data, with their groups; they are not changed.
    allowed
        Elements that the foundation knows.

    Raises
    ------
    RetemperError
        A round that is not there, one of another level of theory, elements unknown to the foundation.
    """
    dataset = project.settings.dataset
    joined = Joined()
    numbers = _round_numbers(dataset, project.rounds)
    groups = {name: {name_of(frame.info["group"]) for frame in part} for name, part in sets.items()} if numbers else {}
    for number in numbers:
        record = rounds.read(project.rounds, number)
        if record.level_of_theory != dataset.level_of_theory:
            raise RetemperError(
                f"Round {number} was labelled at another level of theory.",
                expected=f"{dataset.level_of_theory} (dataset.level_of_theory)",
                got=record.level_of_theory,
                fix="leave it out with dataset.rounds, or restore dataset.level_of_theory",
            )
        name = f"{rounds.FOLDER}/{rounds.name(number)}"
        mapped = _map(rounds.frames(project.rounds, number), dataset, name)
        checks.check_elements(mapped.frames, allowed, project.settings.foundation)
        before = len(joined.rejected)
        joined.rejected += mapped.rejected
        sound = _sound(mapped.frames, sets, dataset, joined)
        new = _new(sound, sets, dataset, joined)
        placed = {"train": 0, "valid": 0}
        for frame in new:
            place = _place(frame, groups, dataset)
            if place == "test":
                joined.rejected.append(reject(frame, "the structure it descends from is in the test set"))
            else:
                (joined.train if place == "train" else joined.valid).append(frame)
                placed[place] += 1
        joined.rounds.append(
            JoinedRound(
                round=number,
                sha256=sha256(project.root / name / "labelled.extxyz"),
                identity=record.identity,
                frames_read=len(mapped.frames) + len(mapped.rejected),
                train=placed["train"],
                valid=placed["valid"],
                rejected=len(joined.rejected) - before,
                reasons=reasons(joined.rejected[before:]),
            )
        )
    return joined


def _round_numbers(dataset: Dataset, folder: Path) -> list[int]:
    available = rounds.numbers(folder)
    if dataset.rounds is None:
        return available
    for number in dataset.rounds:
        if number not in available:
            raise unknown("round (dataset.rounds)", number, [str(n) for n in available])
    return sorted(set(dataset.rounds))


def _map(frames: Sequence[Atoms], dataset: Dataset, name: str) -> Mapped:
    """As the data set's own frames are; rounds have retemper's keys and units."""
    keys = Keys() if dataset.keys.stress or dataset.keys.virial else Keys(stress=None)
    settings = dataset.model_copy(update={"keys": keys, "energy_unit": "eV", "length_unit": "Angstrom"})
    return map_labels(frames, settings, name)


def _sound(frames: Sequence[Atoms], sets: Sets, dataset: Dataset, joined: Joined) -> list[Atoms]:
    faults = [checks.frame_fault(frame, dataset) for frame in frames]
    joined.rejected += [reject(frame, fault) for frame, fault in zip(frames, faults, strict=True) if fault]
    sound = [frame for frame, fault in zip(frames, faults, strict=True) if not fault]
    base = Chain(sets.values())
    energy, _ = checks.energy_faults(Chain([base, sound]), dataset.energy_window)
    energy_faults = energy[len(base) :]
    joined.rejected += [reject(frame, fault) for frame, fault in zip(sound, energy_faults, strict=True) if fault]
    return [frame for frame, fault in zip(sound, energy_faults, strict=True) if not fault]


def _new(frames: Sequence[Atoms], sets: Sets, dataset: Dataset, joined: Joined) -> list[Atoms]:
    """Those that no set and no earlier round has; the raw data's frame stays, whatever the labels say."""
    known = Chain([*sets.values(), joined.train, joined.valid])
    both = Chain([known, frames])
    standing = set(range(len(known)))
    twins: dict[int, list[int]] = {}
    for i, j in near_pairs(both, dataset.near_duplicate):
        twins.setdefault(j, []).append(i)
    unique = []
    for k, frame in enumerate(frames, start=len(known)):
        twin = next((i for i in twins.get(k, []) if i in standing), None)
        if twin is None:
            standing.add(k)
            unique.append(frame)
            continue
        differ = checks.labels_differ(both[twin], frame, dataset.near_duplicate)
        kind = "conflict: another label than" if differ else "duplicate of"
        joined.rejected.append(reject(frame, f"{kind} {both[twin].info['source']}"))
    return unique


def _place(frame: Atoms, groups: Mapping[str, Collection[str]], dataset: Dataset) -> str:
    group = name_of(frame.info["group"])
    for name in ("test", "valid", "train"):
        if group in groups[name]:
            return name
    drawn = int(hashlib.sha256(f"{dataset.seed}:{group}".encode()).hexdigest()[:8], 16) / 16**8
    return "valid" if drawn < dataset.valid else "train"
