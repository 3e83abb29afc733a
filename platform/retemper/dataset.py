"""The dataset stage: from a user's labelled files to checked, de-duplicated, split and audited sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import atomic_numbers

from retemper import checks, splits, subset
from retemper.active import join
from retemper.errors import RetemperError
from retemper.files import atomic_folder, digest, require_space, write_json
from retemper.foundations import find
from retemper.frames import ENERGY, read_frames, write_frames
from retemper.grouping import Grouping, group_frames
from retemper.labels import Mapped, is_free_atom, map_labels, reject
from retemper.manifest import describe, reason_kind, summary
from retemper.settings import Dataset, Settings
from retemper.units import require_units

SETS = ("train", "valid", "test", "isolated", "rejected")
ENOUGH = 20  # frames of one file whose units are judged on their own
BYTES_PER_ATOM = 150  # of extxyz with forces, generously

Frames = list[Atoms]


def build(settings: Settings, out: Path, root: Path) -> dict[str, Any]:
    """Make the training, validation and test sets from ``settings.dataset``.

    Parameters
    ----------
    settings
        All settings; `dataset` and the foundation's name are used.
    out
        Folder for ``train``, ``valid``, ``test``, ``isolated``, ``rejected`` (``.extxyz``, the last
        with ``info["reason"]``; an empty set is an empty file) and ``manifest.json``. Written
        whole or not at all.
    root
        Project root: paths in the settings are relative to it.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    RetemperError
        Unreadable files, missing keys, wrong units, elements unknown to the foundation, mixed
        levels of theory, more rejected frames than ``dataset.max_rejected``, too few frames or
        groups, or a leak between the sets.
    """
    dataset = settings.dataset
    if not dataset.files:
        raise RetemperError("dataset.files is empty.", expected="at least one file of labelled structures")
    files = [root / name for name in dataset.all_files]
    mapped = _read(files, dataset)
    read = sum(len(part.frames) + len(part.rejected) for part in mapped)
    warnings = [text for part in mapped for text in part.warnings]
    frames = [frame for part in mapped for frame in part.frames]
    rejected = [frame for part in mapped for frame in part.rejected]

    checks.check_variation([frame for frame in frames if not is_free_atom(frame)])
    units_warnings, evidence = _judge_units(mapped, dataset)
    warnings += units_warnings
    allowed = known_elements(settings.foundation, root)
    if allowed is None:
        warnings.append(f"the catalogue does not list the elements of {settings.foundation}: not checked here")
    else:
        checks.check_elements(frames, allowed, settings.foundation)
    tags, tag_warnings = checks.level_tags(frames)
    warnings += tag_warnings

    frames, bad = _check(frames, dataset, warnings)
    rejected += bad
    _limit_rejected(rejected, read, dataset.max_rejected)
    free, free_rejected = _free_atoms([frame for frame in frames if is_free_atom(frame)], warnings)
    frames = [frame for frame in frames if not is_free_atom(frame)]
    frames, duplicates = checks.split_duplicates(frames, dataset.near_duplicate)
    rejected += free_rejected + duplicates
    if any(frame.info["reason"].startswith("conflict") for frame in duplicates):
        warnings.append("structures with contradicting labels were rejected: see rejected.extxyz")

    sets, grouping, left_out = _split(frames, dataset)
    beyond, taken = _subset(sets, settings, root)
    warnings += grouping.warnings
    rejected += left_out + beyond
    joined = join.join(sets, dataset, root, allowed, settings.foundation)
    sets = {**sets, "train": sets["train"] + joined.train, "valid": sets["valid"] + joined.valid}
    rejected += joined.rejected
    read += joined.read
    audited = splits.require_no_leaks(sets, dataset.near_duplicate)
    sets |= {"isolated": free, "rejected": rejected}
    _count(sets, read)

    manifest = describe(settings, sets, files, root)
    manifest |= {
        "read": read,
        "rounds": joined.rounds,
        "grouping": {"rule": grouping.rule, "groups": len(set(grouping.groups))},
        "subset": taken,
        "audited": audited,
        "level_of_theory": {"declared": dataset.level_of_theory, "info_keys": tags},
        "units": {"energy": dataset.energy_unit, "length": dataset.length_unit, "evidence": evidence},
        "warnings": warnings,
    }
    require_space(out, BYTES_PER_ATOM * sum(len(frame) for part in sets.values() for frame in part))
    with atomic_folder(out) as folder:
        for name in SETS:
            write_frames(folder / f"{name}.extxyz", sets[name])
        write_json(folder / "manifest.json", manifest)
    print(summary(manifest))
    return manifest


def known_elements(foundation: str, root: Path) -> set[str] | None:
    """Symbols that the catalogue lists for a foundation; `None` where it only describes them."""
    symbols = set((find(foundation, root).elements or "").split())
    return symbols if symbols and symbols <= set(atomic_numbers) else None


def _read(files: Sequence[Path], dataset: Dataset) -> list[Mapped]:
    """Every file once, with mapped labels; names are those of the settings."""
    if len(set(dataset.all_files)) < len(dataset.all_files):
        raise RetemperError("dataset.files and test_files name a file twice.", got=", ".join(dataset.all_files))
    return [map_labels(read_frames(path), dataset, name) for path, name in zip(files, dataset.all_files, strict=True)]


def _judge_units(mapped: Sequence[Mapped], dataset: Dataset) -> tuple[list[str], dict[str, list[str]]]:
    """Units of each file with enough frames, and of all small ones together."""
    small: Frames = []
    warnings: list[str] = []
    evidence: dict[str, list[str]] = {}
    parts = []
    for name, part in zip(dataset.all_files, mapped, strict=True):
        sound = [frame for frame in part.frames if checks.can_be_measured(frame)]
        if len(sound) >= ENOUGH or len(mapped) == 1:
            parts.append((name, sound))
        else:
            small += sound
    if small:
        parts.append(("small files", small))
    for name, sound in parts:
        found, evidence[name] = require_units(sound, dataset.energy_unit, dataset.length_unit, name)
        warnings += found
    return warnings, evidence


def _check(frames: Frames, dataset: Dataset, warnings: list[str]) -> tuple[Frames, Frames]:
    """Frames that pass all checks, and the others; adds to `warnings`."""
    faults = [checks.frame_fault(frame, dataset) for frame in frames]
    rejected = [reject(frame, fault) for frame, fault in zip(frames, faults, strict=True) if fault]
    passed = [frame for frame, fault in zip(frames, faults, strict=True) if not fault]
    judged = [frame for frame in passed if not is_free_atom(frame)]
    energy_faults, found = checks.energy_faults(judged, dataset.energy_window)
    warnings += found
    absurd = {id(frame): fault for frame, fault in zip(judged, energy_faults, strict=True) if fault}
    rejected += [reject(frame, absurd[id(frame)]) for frame in passed if id(frame) in absurd]
    return [frame for frame in passed if id(frame) not in absurd], rejected


def _limit_rejected(rejected: Frames, read: int, share: float) -> None:
    """Raise when the checks took more frames than `share`; duplicates come later and do not count."""
    if len(rejected) <= share * read:
        return
    kinds = Counter(reason_kind(frame.info["reason"]) for frame in rejected)
    example = rejected[0]
    raise RetemperError(
        f"{len(rejected)} of {read} frames fail the checks: "
        + "; ".join(f"{kind} ({number})" for kind, number in kinds.most_common()),
        expected=f"at most {share:.0%} (dataset.max_rejected)",
        got=f"{example.info['source']}: {example.info['reason']}",
        fix="mend or remove these frames; or, if they are to be left out, raise dataset.max_rejected",
    )


def _free_atoms(frames: Frames, warnings: list[str]) -> tuple[Frames, Frames]:
    """One frame an element for the E0s; further ones are duplicates or conflicts."""
    kept: Frames = []
    rejected: Frames = []
    for z in sorted({int(frame.numbers[0]) for frame in frames}):
        same = [frame for frame in frames if frame.numbers[0] == z]
        energies = [frame.info[ENERGY] for frame in same]
        if max(energies) - min(energies) > checks.ENERGY_CONFLICT:
            warnings.append(f"free atoms of {same[0].symbols[0]} have different energies ({energies}): none is used")
            rejected += [
                reject(frame, "conflict: free atoms of this element have different energies") for frame in same
            ]
        else:
            kept.append(same[0])
            rejected += [reject(frame, f"duplicate of {same[0].info['source']}") for frame in same[1:]]
    return kept, rejected


def _split(frames: Frames, dataset: Dataset) -> tuple[dict[str, Frames], Grouping, Frames]:
    """Train, valid and test sets, how they were grouped, and frames that none of them has."""
    given = [frame for frame in frames if _file(frame) in dataset.test_files]
    for frame in given:
        frame.info["group"] = f"test file {_file(frame)}"
    frames = [frame for frame in frames if _file(frame) not in dataset.test_files]
    test = 0.0 if dataset.test_files else dataset.test
    grouping = group_frames(frames, dataset.group, dataset.valid, test or dataset.valid)
    for frame, group in zip(frames, grouping.groups, strict=True):
        frame.info["group"] = group
    places = splits.split(grouping, dataset.valid, test, dataset.seed)
    sets = {
        name: [frame for frame, place in zip(frames, places, strict=True) if place == name] for name in splits.SPLITS
    }
    sets["test"] += given
    left_out = splits.set_aside_gaps(frames, places)
    empty = [name for name, part in sets.items() if not part]
    if empty:
        raise RetemperError(
            f"No frames are left for {' and '.join(empty)}.",
            got=f"{len(frames)} frames, {len(set(grouping.groups))} groups by {grouping.rule}",
            fix="add frames, or name the trajectories in an info key and set dataset.group to it",
        )
    return sets, grouping, left_out


def _subset(sets: dict[str, Frames], settings: Settings, root: Path) -> tuple[Frames, dict[str, Any]]:
    """Cut the training set to ``dataset.max_train``; what was cut, and for the manifest the rule and its order."""
    dataset, train = settings.dataset, sets["train"]
    number = min(dataset.max_train or len(train), len(train))
    taken: dict[str, Any] = {"rule": dataset.subset, "seed": dataset.seed, "of": len(train), "order_hash": None}
    if number == len(train):
        return [], taken
    order = subset.order(dataset.subset, train, number, dataset.seed, subset.by_foundation(settings, root))
    taken["order_hash"] = digest([train[k].info["source"] for k in order])
    chosen = set(order)
    sets["train"] = [frame for k, frame in enumerate(train) if k in chosen]
    return [reject(frame, "beyond dataset.max_train") for k, frame in enumerate(train) if k not in chosen], taken


def _file(frame: Atoms) -> str:
    return str(frame.info["source"]).rpartition(":")[0]


def _count(sets: dict[str, Frames], read: int) -> None:
    """Every frame that was read is in exactly one set."""
    written = [frame.info["source"] for part in sets.values() for frame in part]
    if len(written) != read or len(set(written)) != read:
        raise AssertionError(f"{read} frames were read but {len(written)} written ({len(set(written))} distinct)")
