"""Choosing the structures that are replayed: old data that the fine-tuned model must not forget.

The pool is data of the foundation's pretraining distribution, by default the pretraining set of the foundation's
entry; or structures made for its elements (`retemper.prepare.generated_pool`). Where the pool has no labels, the
foundation gives them. Training and validation structures come from disjoint groups of the pool (``info["group"]``, or
the composition where a frame has no group).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from ase import Atoms

from retemper.config.project import Project
from retemper.config.settings import GENERATED
from retemper.core.files import atomic_folder, sha256
from retemper.data.frames import elements, is_isolated_atom, labels_hash, read_frames, write_frames
from retemper.models import heads
from retemper.prepare import generated_pool, pool_check, pseudolabel, reference_set
from retemper.prepare.overlap import apart, audit
from retemper.prepare.predictor import energies_of, predictor
from retemper.prepare.replay_choice import Choice, choose, has_labels
from retemper.records.replay import Agreement, LabelledSet, ReplayManifest

FROM = 3  # structures made for each one that farthest-point sampling chooses


def describe(frames: Sequence[Atoms]) -> LabelledSet:
    """Counts and the identity of a labelled set."""
    return LabelledSet(
        n_frames=len(frames),
        n_atoms=sum(map(len, frames)),
        labels_hash=labels_hash(frames),
        config_types=dict(sorted(Counter(str(a.info.get("config_type", "Default")) for a in frames).items())),
        elements=dict(sorted(Counter(s for a in frames for s in set(a.symbols)).items())),
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
        labelled = any(map(has_labels, pool))
        agreement = _compared(project, pool, source) if labelled else None
        choice = choose(
            pool,
            settings.replay,
            model=project.weights,
            head=heads.of_foundation(project),
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


def _generated(project: Project) -> list[Atoms]:
    """A pool made for the foundation's elements."""
    from retemper.models import mace

    settings, head, device = project.settings.replay, heads.of_foundation(project), project.settings.finetune.device
    number = (settings.number + settings.valid) * (FROM if settings.select == "farthest-point" else 2)
    print(f"replay: making {number} structures of the foundation's elements", flush=True)
    energies = energies_of(project.weights, head, device)
    return generated_pool.generate(mace.elements(project.weights), number, energies, seed=settings.seed)


def _read(project: Project, name: str) -> list[Atoms]:
    """Frames of a pool or a retention set, checked."""
    path, device = project.root / name, project.settings.finetune.device
    frames = reference_set.read(path, project.settings.dataset)
    predict = predictor(project.weights, heads.of_foundation(project), device)
    for text in reference_set.judge_units(frames, path.name, predict):
        print(f"replay: warning: {text}", flush=True)
    return frames


def _compared(project: Project, pool: Sequence[Atoms], source: str) -> Agreement | None:
    """The pool's labels against the foundation's predictions; says what is odd."""
    ask = predictor(project.weights, heads.of_foundation(project), project.settings.finetune.device)
    predicted = ask([atoms for atoms in pool if has_labels(atoms) and not is_isolated_atom(atoms)])
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
