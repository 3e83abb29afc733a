"""Choosing the structures that are replayed: old data that the fine-tuned model must not forget.

The pools are structures of the foundation's pretraining distribution, by default those of the foundation's entry; or
structures made for its elements (`retemper.prepare.generated_pool`). Where a pool has no labels, the foundation gives
them. Training and validation structures come from disjoint groups of the pools (``info["group"]``, or the composition
where a frame has no group).

What is forgotten is measured on the retention set that the settings or the foundation's entry name. Without one, whole
groups of the pools are kept apart for it: of those with labels of the foundation's level, else of all, labelled by the
foundation, from whose predictions models drift.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from ase import Atoms

from retemper.config import pretraining_data
from retemper.config.project import Project
from retemper.core.files import atomic_folder, write_json
from retemper.core.output import log
from retemper.data.frames import elements, labels_hash, read_frames, write_frames
from retemper.models import heads
from retemper.prepare import pool_doctor, pools, pseudolabel, replay_choice
from retemper.prepare.overlap import audit
from retemper.prepare.pools import Pool
from retemper.prepare.replay_choice import Candidates, has_labels
from retemper.records.replay import KeptApart, LabelledSet, ReplayManifest


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
    """Choose from ``replay.pools``, keep structures apart where no retention set is named, else audit against that.

    The pools and the retention set pass the checks of the data set, units included; labels are compared with the
    foundation's.
    """
    settings, entry = project.settings, project.foundation
    tolerance = settings.dataset.near_duplicate
    named = pretraining_data.retention(settings, entry)
    retention = pools.retention(project, named[0]) if named is not None else []
    every = pools.read(project, retention)
    target = {name: read_frames(project.structures(name)) for name in ("train", "valid", "test")}
    whole = [atoms for frames in target.values() for atoms in frames]
    offered = replay_choice.candidates([pool.frames for pool in every], project.weights, whole, tolerance)
    retained, record = np.zeros(0, dtype=int), None
    if named is not None:
        record = KeptApart(source=named[0], labels="original", structures=len(retention))
    else:
        retained, record = _select_retained(project, every, offered)
    choice = replay_choice.choose(
        replace(offered, indices=np.setdiff1d(offered.indices, retained)),
        settings.replay,
        model=project.weights,
        head=heads.of_foundation(project),
        device=settings.finetune.device,
        target=whole,
    )
    retained_frames = [offered.frames[i] for i in retained]
    frames = {
        "train": _with_labels(project, [offered.frames[i] for i in choice.train]),
        "valid": _with_labels(project, [offered.frames[i] for i in choice.valid]),
        pretraining_data.KEPT: _relabel(project, retained_frames) if _drift(record) else retained_frames,
    }
    of_one_origin = named is None or not any(pool.source.generated for pool in every)
    for name in ("train", "valid"):
        audit(frames[name], retention or retained_frames, tolerance=tolerance, groups=of_one_origin)
    replayed = [*frames["train"], *frames["valid"]]
    findings = pool_doctor.labels(every, offered)
    findings += pool_doctor.overlap(replayed, target, retention or retained_frames, settings.dataset.near_test)
    counts = [np.bincount(offered.pools[part], minlength=len(every)) for part in (choice.train, choice.valid)]
    manifest = ReplayManifest(
        pools=[pool.record(int(counts[0][k]), int(counts[1][k])) for k, pool in enumerate(every)],
        retention=record,
        select=settings.replay.select,
        seed=settings.replay.seed,
        left_out=choice.left_out,
        findings=findings,
        candidates=choice.candidates,
        groups_for_validation=choice.groups_for_validation,
        coverage=choice.coverage,
        train=describe(frames["train"]),
        valid=describe(frames["valid"]),
    )
    with atomic_folder(project.replay) as folder:
        for name, part in frames.items():
            if part or name != pretraining_data.KEPT:  # DVC warns of a dependency that is empty at every run
                write_frames(folder / f"{name}.extxyz", part)
        manifest.write(folder / "manifest.json")
        write_json(folder / f"{pretraining_data.KEPT}.json", describe(frames[pretraining_data.KEPT]).model_dump())
    _say(manifest, sorted(set(elements(offered.frames)) - set(manifest.train.elements)))
    return manifest


def _select_retained(
    project: Project, every: Sequence[Pool], offered: Candidates
) -> tuple[np.ndarray, KeptApart | None]:
    """Candidates that are kept apart, of pools with labels of the foundation's level, else of all."""
    own_level = [k for k, pool in enumerate(every) if pool.of_the_foundations_level]
    for eligible in (own_level, list(range(len(every)))):
        retained = replay_choice.keep_apart(offered, eligible, project.settings.replay)
        if len(retained):
            labels: Literal["original", "foundation"] = "original" if eligible == own_level else "foundation"
            source = ", ".join(every[k].source.name for k in eligible)
            return retained, KeptApart(source=source, labels=labels, structures=len(retained))
    return np.zeros(0, dtype=int), None


def _drift(record: KeptApart | None) -> bool:
    return record is not None and record.labels == "foundation"


def _relabel(project: Project, frames: list[Atoms]) -> list[Atoms]:
    return pseudolabel.of_project(project, frames).frames if frames else []


def _with_labels(project: Project, frames: list[Atoms]) -> list[Atoms]:
    """`frames`, with the foundation's labels where they have none."""
    bare = [k for k, atoms in enumerate(frames) if not has_labels(atoms)]
    labelled = iter(_relabel(project, [frames[k] for k in bare]))
    return [atoms if has_labels(atoms) else next(labelled) for atoms in frames]


def _say(manifest: ReplayManifest, absent: Sequence[str]) -> None:
    """`absent`: elements of the pools that the training structures lack."""
    for pool in manifest.pools:
        labels = "" if pool.labels == "original" else "; it has no labels: they are the foundation's own"
        log.info(
            f"replay: {pool.train} training and {pool.valid} validation structures of {pool.structures} of "
            f"{pool.name}{labels}"
        )
    for why, number in manifest.left_out.items():
        if number:
            log.info(f"replay: left out {number} structure(s): {why}")
    for finding in manifest.findings:
        log.warning(f"replay: warning: {finding.text}")
    if absent:
        log.info(f"replay: elements of the pools that the training structures lack: {' '.join(absent)}")
    record = manifest.retention
    if record is None:
        log.info("replay: too few structures to keep any apart: what is forgotten is not measured (evaluate.retention)")
    elif _drift(record):
        log.info(f"replay: {record.structures} structures kept apart, to measure the drift from the foundation")
    elif record.source in {pool.name for pool in manifest.pools}:
        log.info(f"replay: {record.structures} structures kept apart as retention set")
