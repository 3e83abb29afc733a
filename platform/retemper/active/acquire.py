"""One acquisition: explore, score, choose, label, and write ``data/rounds/NNN``. Killed anywhere, it goes on there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from pydantic import JsonValue

from retemper.active import calibrate, choose, label, manual, source
from retemper.active.calibrate import Scale
from retemper.active.estimate import Estimator
from retemper.active.lock import alone
from retemper.active.source import Source
from retemper.config.project import Project
from retemper.config.settings import Acquire
from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, digest, sha256
from retemper.core.output import log
from retemper.data import rounds
from retemper.data.frames import FORCES, read_frames, structure_hash, write_frames
from retemper.data.grouping import groups_of
from retemper.data.splits import uncharged
from retemper.prepare import mixture
from retemper.prepare.one_level import errors_of
from retemper.records.round import Calibration, Chosen, Exploration, Failed, Plan, Round
from retemper.tracking.lineage import git_commit, versions

CHOSEN, PLAN, EXPLORATION = "chosen", "plan.json", "chosen.json"
UNPHYSICAL = 200  # kept of a round
MUTABLE = {"timeout", "retries", "workers", "ray", "verify", "stop"}  # settings that may change within a round


def run(project: Project) -> Round:
    """Make the next round; one process at a time in a checkout."""
    with alone(project.root):
        return make(project, rounds.next_number(project.rounds))


def make(project: Project, number: int, *, labels: int | None = None, partial: bool = False) -> Round:
    """Make round `number`, or find it made.

    Parameters
    ----------
    labels
        Structures to label; default: ``acquire.labels``.
    partial
        For the manual oracle: structures that did not come back are recorded as failures.

    Raises
    ------
    RetemperError
        No models, nothing found that may be labelled, an oracle that is not the data's, settings that changed
        since the round began, or labels that are still to come (manual oracle).
    """
    out, work = project.rounds / rounds.name(number), _work(project, number)
    if (out / rounds.RECORD).is_file():
        if not manual.labels_changed(project, number):
            return rounds.read(project.rounds, number)
        if not (work / CHOSEN).is_dir():
            raise RetemperError(
                f"The labels of round {number} were changed, but what it was made from is gone.",
                expected=str(work.relative_to(project.root)),
                fix=f"put the labels back, or remove {out.relative_to(project.root)} with its .dvc file to make the "
                "round anew",
            )
        log.info(f"round {number}: the labels were changed and are taken anew")
    options = project.settings.acquire
    label.require_level(options.oracle, project.settings.dataset.level_of_theory)
    if not (work / PLAN).is_file():
        _begin(project, number, work, labels or options.labels)
    plan = Plan.read(work / PLAN)
    if _decisive(plan.settings) != _decisive(options):
        raise RetemperError(
            f"The settings of `acquire` changed since round {number} began.",
            fix=f"put them back, or delete {work.relative_to(project.root)} to begin the round anew (labels are kept)",
        )
    if not (work / CHOSEN).is_dir():
        _choose(project, plan, work)
    selection = read_frames(work / CHOSEN / "chosen.extxyz")
    log.info(f"round {number}: {len(selection)} structures for {options.oracle.name}")
    labelled, failed = _label(project, plan, work, selection, partial)
    if not labelled:
        raise RetemperError(
            f"None of {len(selection)} structures of round {number} was labelled.",
            got=failed[0].info["reason"],
            fix="mend the oracle; then raise acquire.retries, which has failures tried again, and run again",
        )
    return _finish(project, plan, work, out, labelled, failed)


def _work(project: Project, number: int) -> Path:
    """Where a round is made."""
    return project.cache("rounds") / rounds.name(number)


def open_rounds(project: Project) -> list[int]:
    """Rounds that are being made, or whose labels may still be corrected."""
    return sorted(int(path.parent.name) for path in project.cache("rounds").glob(f"[0-9]*/{PLAN}"))


def remove_work(project: Project, number: int) -> None:
    """Remove what a round was made from."""
    shutil.rmtree(_work(project, number), ignore_errors=True)


def _label(
    project: Project, plan: Plan, work: Path, selection: Sequence[Atoms], partial: bool
) -> tuple[list[Atoms], list[Atoms]]:
    """Labelled structures, and those that failed; labels by hand are compared with what the model expects."""
    options = project.settings.acquire
    if not label.is_manual(options.oracle):
        return label.label_all(selection, options, project.root)
    ensemble = source.from_plan(project, plan, work)
    controls = label.to_verify(ensemble.train, plan.settings.verify)
    labelled, failed = manual.collect(selection, project, plan.round, partial, controls)
    if options.verify:
        require_consistent(ensemble, labelled)
    return labelled, failed


def require_consistent(ensemble: Source, labelled: Sequence[Atoms]) -> None:
    """Raise where new labels lie apart from the model as those it was trained on do not."""
    frames = [*ensemble.train, *ensemble.valid]
    errors = errors_of(ensemble.lead, [*frames, *labelled], head=ensemble.head, device=ensemble.device)
    offset = mixture.common_offset(errors, np.arange(len(frames), len(errors)))
    if offset is not None:
        raise RetemperError(
            f"The {len(labelled)} new labels lie {offset[0]:+.3g} eV/atom from what model and data expect.",
            expected=f"as near as the new labels lie to each other (scatter {offset[1]:.2g} eV/atom)",
            fix="label with the method, zero of energy and units of the data, put the files in place of these, then "
            "`retemper round --resume`; acquire.verify: 0 takes labels untested",
        )


def _decisive(settings: Acquire) -> dict[str, JsonValue]:
    """Settings that must stay as they are within a round."""
    return settings.model_dump(exclude=MUTABLE)


def _begin(project: Project, number: int, work: Path, labels: int) -> None:
    """Fix what the round is made with: copies of the weights, the seed, the number of labels."""
    ensemble = source.from_project(project)
    options = project.settings.acquire
    for earlier in work.parent.glob("[0-9]*"):
        if earlier.name < work.name:
            shutil.rmtree(earlier)
    check = None
    if options.verify and not label.is_manual(options.oracle):
        check = label.verify(ensemble.train, options, project.root)
        log.info(f"the oracle reproduces {check.number} labels of the data")
    with atomic_folder(work) as folder:
        for seed, path in ensemble.models.items():
            shutil.copy2(path, folder / f"seed-{seed}{weight_files.SUFFIX}")
        Plan(
            round=number,
            labels=labels,
            seed=options.seed * 1000 + number,
            strategy=ensemble.strategy,
            champion=ensemble.champion,
            models={seed: sha256(path) for seed, path in ensemble.models.items()},
            lead=ensemble.lead_seed,
            data=ensemble.data,
            oracle_check=check,
            settings=options,
            level_of_theory=label.require_level(options.oracle, project.settings.dataset.level_of_theory),
            git=git_commit(project.root),
            software=versions(),
        ).write(folder / PLAN)


def _choose(project: Project, plan: Plan, work: Path) -> None:
    """Explore, score and choose into ``selection``; tasks that were computed before a kill are not computed again."""
    options = project.settings.acquire
    ensemble = source.from_plan(project, plan, work)
    explored = choose.explore(ensemble, options, plan.seed, project.cache("active"))
    log.info(f"round {plan.round}: {len(explored.frames)} candidates, {len(explored.unphysical)} unphysical")
    excluded = choose.known_frames(project)
    with atomic_folder(work / CHOSEN) as folder:
        estimate = choose.estimator(ensemble, options)
        held_out = calibration_of(ensemble, estimate, ensemble.valid, folder / "calibration")
        log.info(f"{options.uncertainty.name}: {held_out.sentence()}")
        candidates, turned_away = choose.admissible(explored, estimate, held_out, ensemble, project.settings, excluded)
        if not candidates:
            reasons = ", ".join(f"{number} {reason}" for reason, number in turned_away.items())
            raise RetemperError(
                "Exploration found no structure that may be labelled.",
                got=reasons or "; ".join(explored.notes[:3]),
                fix="raise acquire.candidates, add explorers, or lower acquire.apart",
            )
        selection = choose.select(candidates, ensemble, options, plan.labels, plan.seed)
        for atoms in selection:
            atoms.info["round"] = plan.round
        write_frames(folder / "chosen.extxyz", selection)
        write_frames(folder / "unphysical.extxyz", explored.unphysical[:UNPHYSICAL])
        Exploration(
            candidates=len(explored.frames),
            unphysical=len(explored.unphysical),
            turned_away=turned_away,
            notes=explored.notes,
            calibration=held_out,
        ).write(folder / EXPLORATION)


def calibration_of(
    ensemble: Source, estimate: Estimator, frames: Sequence[Atoms], plot: Path | None, scale: Scale | None = None
) -> Calibration:
    """The uncertainty against the leading model's errors on labelled `frames`; with a plot (path without suffix).

    With `scale` that is judged, else one is fitted.
    """
    uncertainty = estimate(frames)
    forces = source.forces(ensemble, frames)
    error = [f - atoms.arrays[FORCES] for f, atoms in zip(forces, frames, strict=True)]
    calibration = calibrate.calibrate(uncertainty, error, groups_of(frames), scale)
    if plot is not None:
        calibrate.plot(uncertainty, error, calibration, plot.with_suffix(".png"))
    return calibration


def _finish(project: Project, plan: Plan, work: Path, out: Path, labelled: list[Atoms], failed: list[Atoms]) -> Round:
    """The round's folder, whole or not at all; what the model expected is compared with what the oracle found."""
    options = project.settings.acquire
    ensemble = source.from_plan(project, plan, work)
    by_hand = label.is_manual(options.oracle)
    estimate = choose.estimator(ensemble, options)
    exploration = Exploration.read(work / CHOSEN / EXPLORATION)
    with atomic_folder(out) as folder:
        scale = Scale.of(exploration.calibration)
        prospective = calibration_of(ensemble, estimate, labelled, folder / "prospective", scale)
        log.info(f"{options.uncertainty.name} on what was labelled: {prospective.sentence()}")
        write_frames(folder / "labelled.extxyz", labelled)
        write_frames(folder / "failed.extxyz", failed)
        for name in ("unphysical.extxyz", "calibration.png"):
            shutil.copy2(work / CHOSEN / name, folder / name)
        if project.settings.finetune.start == "last-round":
            shutil.copy2(ensemble.lead, folder / rounds.MODEL)
            frames = uncharged([*rounds.seen(project.rounds), *ensemble.train])
            write_frames(folder / rounds.SEEN, {structure_hash(atoms): atoms for atoms in frames}.values())
        record = Round(
            **{**dict(plan), **dict(exploration)},
            prospective=prospective,
            labelled=[Chosen.model_validate(_entry(atoms)) for atoms in labelled],
            failed=[Failed.model_validate(_entry(atoms)) for atoms in failed],
            identity=digest([atoms.info["label"] for atoms in labelled]),
            returned=manual.labels_digest(project, plan.round) if by_hand else None,
        )
        record.write(folder / rounds.RECORD)
    if not by_hand:  # labels by hand may be corrected later
        shutil.rmtree(work)
    label.clean(project.root)
    return record


def _entry(atoms: Atoms) -> dict[str, JsonValue]:
    """Why a structure was chosen, as plain data."""
    info = {key: value for key, value in atoms.info.items() if not key.startswith("REF_")}
    entry = {key: value.item() if isinstance(value, np.generic) else value for key, value in info.items()}
    return {"formula": atoms.get_chemical_formula(), **entry}
