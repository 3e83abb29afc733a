"""The dataset stage: from a user's labelled files to checked, de-duplicated, split and audited sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from retemper.config.foundations import find
from retemper.config.settings import Dataset, Settings
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, digest, require_space, write_json
from retemper.data import charge, checks, nearness, splits
from retemper.data.frame_store import Picked, Store
from retemper.data.frames import ENERGY, write_frames
from retemper.data.grouping import MIN_FRAMES, Grouping, group_frames, groups_of
from retemper.data.labels import is_free_atom
from retemper.prepare import reading, rounds, subset
from retemper.prepare.manifest import describe, reason_kind, reasons, summary

SETS = ("train", "valid", "test", "isolated", "unused", "rejected")
BYTES_PER_ATOM = 150  # of extxyz with forces, generously

Array = np.ndarray


def build(settings: Settings, out: Path, root: Path) -> dict[str, Any]:
    """Make the training, validation and test sets from ``settings.dataset``.

    Parameters
    ----------
    settings
        All settings; `dataset` and the foundation's name are used.
    out
        Folder for ``train``, ``valid``, ``test``, ``isolated``, ``unused`` (sound frames beyond
        ``dataset.max_train``, or set aside between sets) and ``rejected`` (``.extxyz``, the last two
        with ``info["reason"]``; an empty set is an empty file), and ``manifest.json``. Written
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
    if not settings.dataset.files:
        raise RetemperError("dataset.files is empty.", expected="at least one file of labelled structures")
    with Store(out.parent) as store:
        return _build(settings, out, root, store)


def _build(settings: Settings, out: Path, root: Path, store: Store) -> dict[str, Any]:
    dataset = settings.dataset
    files = [root / name for name in dataset.all_files]
    parts = reading.read(files, dataset, store)
    read = len(store)
    parts, left = reading.leave_out(parts, dataset, store)
    warnings = [text for part in parts for text in part.warnings]
    atoms = np.array([is_free_atom(frame) for frame in store], dtype=bool)  # [read]
    labelled = np.concatenate([part.frames for part in parts])
    rejected = [k for part in parts for k in part.rejected]

    checks.check_variation(Picked(store, labelled[~atoms[labelled]]))
    judged = reading.judge_units(parts, store, settings, root)
    warnings += judged.warnings
    allowed = known_elements(settings.foundation, root)
    if allowed is None:
        warnings.append(f"the catalogue does not list the elements of {settings.foundation}: not checked here")
    else:
        checks.check_elements(Picked(store, labelled), allowed, settings.foundation)
    tags, tag_warnings = checks.level_tags(Picked(store, labelled))
    warnings += tag_warnings + charge.warnings(Picked(store, labelled[~atoms[labelled]]))

    sound, bad = _check(labelled, atoms, store, dataset, warnings)
    rejected += bad
    _limit_rejected(rejected, store, read, dataset.max_rejected)
    free, free_rejected = _free_atoms(sound[atoms[sound]], store, warnings)
    frames, duplicates, conflicts = _without_duplicates(sound[~atoms[sound]], store, dataset)
    rejected += free_rejected + duplicates
    if conflicts:
        warnings.append("structures with contradicting labels were rejected: see rejected.extxyz")
    _require_enough(frames, free, rejected, left, store)

    sets, grouping, left_out = _split(frames, parts, store, dataset)
    sets["train"], beyond, taken = _subset(sets["train"], store, settings, root)
    warnings += grouping.warnings
    raw = {name: Picked(store, part) for name, part in sets.items()}
    joined = rounds.join(raw, dataset, root, allowed, settings.foundation)
    for name, more in (("train", joined.train), ("valid", joined.valid)):
        sets[name] = np.append(sets[name], np.array([store.append(frame) for frame in more], dtype=np.int64))
    rejected += [store.append(frame) for frame in joined.rejected]
    read += joined.read
    final = {name: Picked(store, part) for name, part in sets.items()}
    audited = splits.require_no_leaks(final, dataset.near_duplicate)
    near = nearness.audit(final, dataset.near_test)
    warnings += near.warnings
    others = {"isolated": free, "unused": left_out + beyond + left, "rejected": rejected}
    sets |= {name: np.array(part, dtype=np.int64) for name, part in others.items()}
    _count(sets, read, store)

    written = {name: Picked(store, part) for name, part in sets.items()}
    manifest = describe(settings, written, files, root)
    manifest |= {
        "read": read,
        "rounds": joined.rounds,
        "grouping": {"rule": grouping.rule, "groups": len(set(grouping.groups))},
        "subset": taken,
        "audited": audited,
        "nearness": {name: asdict(one) for name, one in near.found.items()},
        "level_of_theory": {"declared": dataset.level_of_theory, "info_keys": tags, "left_out": len(left)},
        "units": {
            "energy": dataset.energy_unit,
            "length": dataset.length_unit,
            "evidence": judged.evidence,
            "untested": judged.untested,
        },
        "warnings": warnings,
    }
    require_space(out, BYTES_PER_ATOM * sum(one["atoms"] for one in manifest["sets"].values()))
    with atomic_folder(out) as folder:
        for name in SETS:
            write_frames(folder / f"{name}.extxyz", written[name])
        write_json(folder / "manifest.json", manifest)
    print(summary(manifest))
    return manifest


def _require_enough(
    frames: Array, free: Sequence[int], rejected: Sequence[int], left: Sequence[int], store: Store
) -> None:
    """Raise, with the reasons, when too few frames are left to split."""
    if len(frames) >= MIN_FRAMES:
        return
    kinds = reasons(Picked(store, [*rejected, *left]))
    if free:
        kinds = {"free atom": len(free), **kinds}
    raise RetemperError(
        f"Only {len(frames)} frame(s) are left to split into train, valid and test.",
        expected=f"at least {MIN_FRAMES} frames of more than one atom",
        got=f"{len(store)} frames read"
        + "".join(f"; {number} not used: {kind}" for kind, number in list(kinds.items())[:8]),
        fix="add labelled structures, or mend those that are not used for the reason above",
    )


def known_elements(foundation: str, root: Path) -> set[str] | None:
    """Symbols that the catalogue lists for a foundation; `None` where it only describes them."""
    symbols = set((find(foundation, root).elements or "").split())
    return symbols if symbols and symbols <= set(atomic_numbers) else None


def _check(frames: Array, atoms: Array, store: Store, dataset: Dataset, warnings: list[str]) -> tuple[Array, list[int]]:
    """Frames that pass all checks, and the others with their reason noted; adds to `warnings`."""
    faults = [checks.frame_fault(frame, dataset) for frame in Picked(store, frames)]
    fine = np.array([fault is None for fault in faults], dtype=bool)
    rejected = reading.mark(store, dict(zip(frames.tolist(), faults, strict=True)))
    passed = frames[fine]
    judged = passed[~atoms[passed]]
    energy_faults, found = checks.energy_faults(Picked(store, judged), dataset.energy_window)
    warnings += found
    absurd = reading.mark(store, dict(zip(judged.tolist(), energy_faults, strict=True)))
    return passed[~np.isin(passed, absurd)], rejected + absurd


def _set_aside(store: Store, frames: Array, reason: str) -> list[int]:
    """Note why sound frames are not used; their indices."""
    for index in frames.tolist():
        store.note(index, "reason", reason)
    return list(frames.tolist())


def _limit_rejected(rejected: Sequence[int], store: Store, read: int, share: float) -> None:
    """Raise when the checks took more frames than `share`; duplicates come later and do not count."""
    if len(rejected) <= share * read:
        return
    every = [(frame.info["source"], frame.info["reason"]) for frame in Picked(store, rejected)]
    kinds = Counter(reason_kind(reason) for _, reason in every)
    raise RetemperError(
        f"{len(rejected)} of {read} frames fail the checks: "
        + "; ".join(f"{kind} ({number})" for kind, number in kinds.most_common(8)),
        expected=f"at most {share:.0%} (dataset.max_rejected)",
        got=f"{every[0][0]}: {every[0][1]}",
        fix="mend or remove these frames; or, if they are to be left out, raise dataset.max_rejected",
    )


def _free_atoms(atoms: Array, store: Store, warnings: list[str]) -> tuple[list[int], list[int]]:
    """One neutral frame an element for the E0s; further ones are duplicates or conflicts."""
    kept: list[int] = []
    frames = {int(k): store[int(k)] for k in atoms}
    ions = [k for k, frame in frames.items() if charge.charge_of(frame)]
    rejected = reading.mark(store, dict.fromkeys(ions, "a free ion is no reference energy"))
    frames = {k: frame for k, frame in frames.items() if k not in ions}
    for z in sorted({int(frame.numbers[0]) for frame in frames.values()}):
        same = {k: frame for k, frame in frames.items() if frame.numbers[0] == z}
        energies = [frame.info[ENERGY] for frame in same.values()]
        first, *others = same
        if max(energies) - min(energies) > checks.ENERGY_CONFLICT:
            span = f"{min(energies):g} to {max(energies):g} eV"
            warnings.append(f"free atoms of {chemical_symbols[z]} have different energies ({span}): none is used")
            reason = "conflict: free atoms of this element have different energies"
            rejected += reading.mark(store, dict.fromkeys(same, reason))
        else:
            kept.append(first)
            rejected += reading.mark(store, dict.fromkeys(others, f"duplicate of {same[first].info['source']}"))
    return kept, rejected


def _without_duplicates(frames: Array, store: Store, dataset: Dataset) -> tuple[Array, list[int], bool]:
    """Frames without duplicates, those taken out, and whether labels of equal structures contradict each other."""
    reasons = checks.find_duplicates(Picked(store, frames), dataset.near_duplicate)
    removed = reading.mark(store, {int(frames[k]): reason for k, reason in reasons.items()})
    return np.setdiff1d(frames, removed), removed, any(reason.startswith("conflict") for reason in reasons.values())


def _split(
    frames: Array, parts: Sequence[reading.Part], store: Store, dataset: Dataset
) -> tuple[dict[str, Array], Grouping, list[int]]:
    """Train, valid and test sets, how they were grouped, and frames that none of them has."""
    given = []
    for part in parts:
        if part.name in dataset.test_files:
            given.append(frames[np.isin(frames, part.frames)])
            for k, group in zip(given[-1].tolist(), groups_of(Picked(store, given[-1])), strict=True):
                store.note(k, "group", f"test file {part.name}: {group}")
    frames = np.setdiff1d(frames, np.concatenate(given)) if given else frames
    test = 0.0 if dataset.test_files else dataset.test
    grouping = group_frames(Picked(store, frames), dataset.group, dataset.valid, test or dataset.valid)
    for k, group in zip(frames.tolist(), grouping.groups, strict=True):
        store.note(k, "group", group)
    places = np.array(splits.split(grouping, dataset.valid, test, dataset.seed))
    sets = {name: frames[places == name] for name in splits.SPLITS}
    sets["test"] = np.concatenate([sets["test"], *given])
    left_out = _set_aside(store, frames[places == "gap"], splits.GAP)
    empty = [name for name, part in sets.items() if not len(part)]
    if empty:
        raise RetemperError(
            f"No frames are left for {' and '.join(empty)}.",
            got=f"{len(frames)} frames, {len(set(grouping.groups))} groups by {grouping.rule}",
            fix="add frames, or name the trajectories in an info key and set dataset.group to it",
        )
    return sets, grouping, left_out


def _subset(train: Array, store: Store, settings: Settings, root: Path) -> tuple[Array, list[int], dict[str, Any]]:
    """The training set cut to ``dataset.max_train``; what was cut, and for the manifest the rule and its order."""
    dataset = settings.dataset
    number = min(dataset.max_train or len(train), len(train))
    taken: dict[str, Any] = {"rule": dataset.subset, "seed": dataset.seed, "of": len(train), "order_hash": None}
    if number == len(train):
        return train, [], taken
    frames = Picked(store, train)
    order = subset.order(dataset.subset, frames, number, dataset.seed, subset.by_foundation(settings, root))
    taken["order_hash"] = digest([frames[k].info["source"] for k in order])
    chosen = np.zeros(len(train), dtype=bool)
    chosen[order] = True
    beyond = _set_aside(store, train[~chosen], "beyond dataset.max_train")
    return train[chosen], beyond, taken


def _count(sets: Mapping[str, Array], read: int, store: Store) -> None:
    """Every frame that was read is in exactly one set."""
    written = np.concatenate(list(sets.values()))
    if not len(written) == len(np.unique(written)) == read == len(store):
        raise AssertionError(f"{read} frames were read but {len(written)} written ({len(np.unique(written))} distinct)")
