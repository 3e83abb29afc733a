"""Choosing the structures that are replayed: old data that the fine-tuned model must not forget.

The pool is labelled data of the foundation's pretraining distribution, by default the
pretraining set of the foundation's entry. Training and validation structures come from
disjoint groups of it (``info["group"]``, or the composition where a frame has no group).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.config.foundations import Foundation
from retemper.config.settings import Dataset, Replay
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, sha256, write_json
from retemper.data import selection
from retemper.data.duplicates import near_pairs
from retemper.data.frames import (
    ENERGY,
    FORCES,
    elements,
    is_isolated_atom,
    labels_hash,
    read_frames,
    structure_hash,
    write_frames,
)
from retemper.data.grouping import name_of
from retemper.data.splits import leaks, uncharged
from retemper.prepare import reference_set
from retemper.prepare.predictor import predictor

NEAR = 1e-3  # A; the default of dataset.near_duplicate


@dataclass(frozen=True)
class Choice:
    """Indices into the pool, and what there is to say about how they came about."""

    train: np.ndarray
    valid: np.ndarray
    report: dict[str, Any]


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
        A pool frame without energy or forces, or too few candidates or groups.
    """
    candidates, left_out = _candidates(pool, model, target, tolerance)
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
        coverage = {
            "radius": selection.coverage_radius(points, picked),
            "radius_random": selection.coverage_radius(points, at_random),
        }
        train = own[picked]
    else:
        if progress:
            print(f"replay: {settings.select} choice of {settings.number} structures", flush=True)
        train = _draw(candidates[~held], None if tiers is None else tiers[~held], settings.number, rng)
    valid = _draw(candidates[held], None if tiers is None else tiers[held], settings.valid, rng)
    report = {
        "select": settings.select,
        "seed": settings.seed,
        "pool": len(pool),
        "left_out": left_out,
        "candidates": len(candidates),
        "groups_for_validation": len({group_of(pool[i]) for i in candidates[held]}),
        "coverage": coverage,
    }
    return Choice(train, valid, report)


def _candidates(
    pool: Sequence[Atoms], model: str | Path, target: Sequence[Atoms], tolerance: float
) -> tuple[np.ndarray, dict[str, int]]:
    """Indices of the pool's frames that may be chosen, and how many are not and why."""
    from retemper.models import mace, predictions

    known = set(mace.elements(model))
    own = len(target)
    taken = {j - own for i, j in near_pairs([*uncharged(target), *uncharged(pool)], tolerance) if i < own <= j}
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
        elif ENERGY not in atoms.info or FORCES not in atoms.arrays:
            raise RetemperError(
                f"{predictions.name_of(atoms, i)} of the replay pool has no labels.",
                expected=f"info {ENERGY!r} (eV) and array {FORCES!r} (eV/A) in every frame",
                fix="rename the keys in the pool's file",
            )
        else:
            candidates.append(i)
        seen.add(identity)
    return np.array(candidates, dtype=int), left_out


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


# ------------------------------------------------------------------ the stage


def describe(frames: Sequence[Atoms]) -> dict[str, Any]:
    """Counts and the identity of a labelled set, for manifests."""
    return {
        "n_frames": len(frames),
        "n_atoms": sum(map(len, frames)),
        "labels_hash": labels_hash(frames),
        "config_types": dict(sorted(Counter(str(a.info.get("config_type", "Default")) for a in frames).items())),
        "elements": dict(sorted(Counter(s for a in frames for s in set(a.symbols)).items())),
    }


def audit(
    chosen: Sequence[Atoms],
    retention: Sequence[Atoms],
    what: str = "the replay set",
    *,
    tolerance: float = NEAR,
    groups: bool = True,
) -> None:
    """Raise when `chosen` and the retention set share a structure (within `tolerance`, A), or a group.

    `groups` is for sets of one origin: names of groups mean nothing between sets of different origin.
    """
    leaked = leaks(chosen, retention, tolerance, groups=groups)
    if leaked:
        first = leaked[0]
        raise RetemperError(
            f"{what} and the retention set share {len(leaked)} structure(s) or group(s), the first: {first['kind']}, "
            f"{first['a']} and {first['b']}. Forgetting would look smaller than it is.",
            expected=f"no structure within {tolerance:g} A (dataset.near_duplicate) and no group in both",
            fix="take the held-out structures and their groups out of replay.pool, or set another evaluate.retention",
        )


def _read(path: Path | None, limits: Dataset | None, model: Path, head: str | None, device: str) -> list[Atoms]:
    """Frames of a pool or a retention set, checked where there are `limits`; none without a path."""
    if path is None:
        return []
    if limits is None:
        return read_frames(path)
    frames = reference_set.read(path, limits)
    for text in reference_set.judge_units(frames, path.name, predictor(model, head, device)):
        print(f"replay: warning: {text}", flush=True)
    return frames


def make(
    settings: Replay,
    foundation: Foundation,
    model: Path,
    out: Path,
    *,
    retention: Path | None,
    target: Sequence[Atoms],
    root: Path,
    device: str = "cpu",
    tolerance: float = NEAR,
    limits: Dataset | None = None,
) -> None:
    """Write ``train.extxyz``, ``valid.extxyz`` and ``manifest.json`` into the folder `out`.

    With `limits` the pool and the retention set pass the checks of the data set, units included.

    A foundation without a pool gives empty sets (and a line that says so): strategies without replay do not need them.
    """
    source = settings.pool or foundation.pool
    with atomic_folder(out) as folder:
        if source is None:
            print(
                f"replay: foundation {foundation.name} has no pool and replay.pool is not set: nothing to replay",
                flush=True,
            )
            write_frames(folder / "train.extxyz", [])
            write_frames(folder / "valid.extxyz", [])
            write_json(folder / "manifest.json", {"source": None, "train": describe([]), "valid": describe([])})
            return
        pool, held_out = (_read(path, limits, model, foundation.head, device) for path in (root / source, retention))
        choice = choose(
            pool, settings, model=model, head=foundation.head, device=device, target=target, tolerance=tolerance
        )
        manifest: dict[str, Any] = {"source": source, "sha256": sha256(root / source), **choice.report}
        manifest["audited_against_retention"] = len(held_out)
        for name, indices in (("train", choice.train), ("valid", choice.valid)):
            frames = [pool[i] for i in indices]
            audit(frames, held_out, tolerance=tolerance)
            write_frames(folder / f"{name}.extxyz", frames)
            manifest[name] = describe(frames)
        write_json(folder / "manifest.json", manifest)
    absent = sorted(set(elements(pool)) - set(manifest["train"]["elements"]))
    print(f"replay: {len(choice.train)} training and {len(choice.valid)} validation structures of {source}")
    for why, number in choice.report["left_out"].items():
        if number:
            print(f"replay: left out {number} pool structure(s): {why}")
    if absent:
        print(f"replay: elements of the pool that the training structures lack: {' '.join(absent)}")
