"""Choosing the structures that are replayed: old data that the fine-tuned model must not forget.

The pool is data of the foundation's pretraining distribution, by default the pretraining set of the foundation's
entry; or structures made for its elements (`retemper.prepare.generated_pool`). Where the pool has no labels, the
foundation gives them. Training and validation structures come from disjoint groups of the pool (``info["group"]``, or
the composition where a frame has no group).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.config.project import Project
from retemper.config.settings import GENERATED, Replay
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, sha256
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
from retemper.prepare import generated_pool, pool_check, pseudolabel, reference_set
from retemper.prepare.predictor import energies_of, predictor
from retemper.records.replay import Agreement, Coverage, LabelledSet, ReplayManifest

NEAR = 1e-3  # A; the default of dataset.near_duplicate
FROM = 3  # structures made for each one that farthest-point sampling chooses


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
    taken = _near(pool, target, tolerance)
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
        elif labelled and not _has_labels(atoms):
            raise RetemperError(
                f"{predictions.name_of(atoms, i)} of the replay pool has no labels.",
                expected=f"info {ENERGY!r} (eV) and array {FORCES!r} (eV/A) in every frame",
                fix="rename the keys in the pool's file",
            )
        else:
            candidates.append(i)
        seen.add(identity)
    return np.array(candidates, dtype=int), left_out


def _near(pool: Sequence[Atoms], others: Sequence[Atoms], tolerance: float) -> set[int]:
    """Indices of structures of `pool` that are within `tolerance` (A) of one of `others`, whatever their charge."""
    n = len(others)
    return {j - n for i, j in near_pairs([*uncharged(others), *uncharged(pool)], tolerance) if i < n <= j}


def _has_labels(atoms: Atoms) -> bool:
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


# ------------------------------------------------------------------ the stage


def describe(frames: Sequence[Atoms]) -> LabelledSet:
    """Counts and the identity of a labelled set."""
    return LabelledSet(
        n_frames=len(frames),
        n_atoms=sum(map(len, frames)),
        labels_hash=labels_hash(frames),
        config_types=dict(sorted(Counter(str(a.info.get("config_type", "Default")) for a in frames).items())),
        elements=dict(sorted(Counter(s for a in frames for s in set(a.symbols)).items())),
    )


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


def run(project: Project) -> ReplayManifest:
    """Choose from ``replay.pool`` or the foundation's pool, and audit against the retention set.

    The pool and the retention set pass the checks of the data set, units included; labels are compared with the
    foundation's. A foundation without a pool gives empty sets (and a line that says so): strategies without replay do
    not need them.
    """
    settings, entry = project.settings, project.foundation
    source, retention = settings.replay.pool or entry.pool, settings.evaluate.retention or entry.retention
    chosen: dict[str, list[Atoms]] = {"train": [], "valid": []}
    pool, held_out, choice = [], [], Choice(np.array([]), np.array([]), {}, 0, 0, None)
    agreement, labelled = None, True
    if source is None:
        print(
            f"replay: foundation {entry.name} has no pool and replay.pool is not set: nothing to replay "
            f"(replay.pool: {GENERATED} makes structures for its elements)",
            flush=True,
        )
    else:
        tolerance, held_out = settings.dataset.near_duplicate, _read(project, retention) if retention else []
        made = source == GENERATED
        pool = apart(_generated(project), held_out, tolerance) if made else _read(project, source)
        labelled = any(map(_has_labels, pool))
        agreement = _compared(project, pool, source) if labelled else None
        choice = choose(
            pool,
            settings.replay,
            model=project.weights,
            head=entry.head,
            device=settings.finetune.device,
            target=[a for name in ("train", "valid", "test") for a in read_frames(project.structures(name))],
            tolerance=tolerance,
            labelled=labelled,
        )
        for name, indices in (("train", choice.train), ("valid", choice.valid)):
            frames = [pool[i] for i in indices]
            chosen[name] = frames if labelled else pseudolabel.of_project(project, frames).frames
            audit(chosen[name], held_out, tolerance=tolerance, groups=not made)
    manifest = ReplayManifest(
        source=source,
        sha256=sha256(project.root / source) if source not in (None, GENERATED) else None,
        labels="original" if labelled else "foundation",
        agreement=agreement,
        select=settings.replay.select,
        seed=settings.replay.seed,
        pool=len(pool),
        left_out=choice.left_out,
        candidates=choice.candidates,
        groups_for_validation=choice.groups_for_validation,
        coverage=choice.coverage,
        audited_against_retention=len(held_out),
        train=describe(chosen["train"]),
        valid=describe(chosen["valid"]),
    )
    with atomic_folder(project.replay) as folder:
        for name, frames in chosen.items():
            write_frames(folder / f"{name}.extxyz", frames)
        manifest.write(folder / "manifest.json")
    if source is not None:
        _say(manifest, sorted(set(elements(pool)) - set(manifest.train.elements)))
    return manifest


def apart(pool: Sequence[Atoms], held_out: Sequence[Atoms], tolerance: float) -> list[Atoms]:
    """Structures of `pool` that are none of `held_out` (within `tolerance`, A): prototypes are the same everywhere."""
    near = _near(pool, held_out, tolerance)
    return [atoms for k, atoms in enumerate(pool) if k not in near]


def _generated(project: Project) -> list[Atoms]:
    """A pool made for the foundation's elements."""
    from retemper.models import mace

    settings, head, device = project.settings.replay, project.foundation.head, project.settings.finetune.device
    number = (settings.number + settings.valid) * (FROM if settings.select == "farthest-point" else 2)
    print(f"replay: making {number} structures of the foundation's elements", flush=True)
    energies = energies_of(project.weights, head, device)
    return generated_pool.generate(mace.elements(project.weights), number, energies, seed=settings.seed)


def _read(project: Project, name: str) -> list[Atoms]:
    """Frames of a pool or a retention set, checked."""
    path, device = project.root / name, project.settings.finetune.device
    frames = reference_set.read(path, project.settings.dataset)
    predict = predictor(project.weights, project.foundation.head, device)
    for text in reference_set.judge_units(frames, path.name, predict):
        print(f"replay: warning: {text}", flush=True)
    return frames


def _compared(project: Project, pool: Sequence[Atoms], source: str) -> Agreement | None:
    """The pool's labels against the foundation's predictions; says what is odd."""
    ask = predictor(project.weights, project.foundation.head, project.settings.finetune.device)
    predicted = ask([atoms for atoms in pool if _has_labels(atoms) and not is_isolated_atom(atoms)])
    if predicted is None:
        return None
    agreement = pool_check.agreement(predicted)
    if (text := pool_check.warning(agreement, source)) is not None:
        print(f"replay: warning: {text}", flush=True)
    return agreement


def _say(manifest: ReplayManifest, absent: Sequence[str]) -> None:
    """`absent`: elements of the pool that the training structures lack."""
    train, valid = manifest.train.n_frames, manifest.valid.n_frames
    print(f"replay: {train} training and {valid} validation structures of {manifest.source}")
    if manifest.labels == "foundation":
        print("replay: the pool has no labels: they are the foundation's own")
    for why, number in manifest.left_out.items():
        if number:
            print(f"replay: left out {number} pool structure(s): {why}")
    if absent:
        print(f"replay: elements of the pool that the training structures lack: {' '.join(absent)}")
