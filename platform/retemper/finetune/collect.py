"""What finished trainings leave: each in its own folder, and those of a strategy in ``runs/finetune/<strategy>``.

A training's folder says by key and checksums what lies in it, so that a damaged file, or one of another training, is
noticed before anything reads it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from retemper.config.project import Project
from retemper.config.strategies import Point
from retemper.core import sealed, weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder
from retemper.finetune.plan import Plan
from retemper.records.training import KeptTraining, Outcome, SeedOutcome, TrainingSummary
from retemper.tracking import lineage

FILES = (weight_files.NAME, "history.csv", "effective.json", "mace.yaml")
WALK = "walk.csv"  # errors along the line from the foundation to the trained model, of strategies that interpolate
SUMMARY = "summary.json"


def files_of(plan: Plan) -> tuple[str, ...]:
    """The files that the training of `plan` leaves."""
    return FILES if plan.line is None else (*FILES, WALK)


def finish(folder: Path, key: str, outcome: Outcome, names: Sequence[str] = FILES) -> None:
    """Write what the training `key` came to, with checksums of its files `names`: from now on it is finished."""
    whole = KeptTraining(**outcome.model_dump(), files=sealed.hashes(folder, names))
    sealed.write_json(folder / SUMMARY, key, whole.model_dump())


def finished(folder: Path, key: str) -> Outcome | None:
    """What the training `key` came to; `None` where it is not finished, or where not all is as it was left.

    What is damaged or of another training is put aside.
    """
    training = read_summary(folder, key)
    if training is None:
        return None
    sound = True
    for name, expected in training.files.items():
        why = sealed.difference(folder, {name: expected})
        if why:
            sealed.put_aside(folder / name if os.path.lexists(folder / name) else folder / SUMMARY, why)
            sound = False
    return training.outcome if sound else None


def read_summary(folder: Path, key: str) -> KeptTraining | None:
    """The summary of the training `key`, its files unseen; one that is damaged or of another training is put aside."""
    content = sealed.read_json(folder / SUMMARY, key)
    return None if content is None else KeptTraining.model_validate(content)


def collect(
    project: Project, strategy: str, plans: Sequence[Plan], folders: Sequence[Path], point: Point
) -> TrainingSummary:
    """Write ``runs/finetune/<strategy>`` of the project, whole or not at all.

    Parameters
    ----------
    plans, folders
        A plan a seed, and the folder where it was trained.
    point
        Settings that a sweep found, by dotted path; empty without one.

    Raises
    ------
    RetemperError
        What lies in a folder is not what its training left there.
    """
    seeds: dict[int, SeedOutcome] = {}
    with atomic_folder(project.finetuned(strategy)) as out:
        for plan, folder in zip(plans, folders, strict=True):
            (out / f"seed-{plan.seed}").mkdir()
            for name in files_of(plan):
                shutil.copy2(folder / name, out / f"seed-{plan.seed}" / name)
            outcome = _outcome_of(plan, folder, out / f"seed-{plan.seed}")
            ended = (folder / "history.csv").stat().st_mtime
            seeds[plan.seed] = SeedOutcome(**outcome.model_dump(), ended=ended)
        summary = TrainingSummary(
            strategy=strategy,
            foundation=project.settings.foundation,
            settings=plans[0].strategy,
            found_by_sweep=point,
            origin=lineage.origin(project.root),
            seeds=seeds,
        )
        summary.write(out / SUMMARY)
    return summary


def _outcome_of(plan: Plan, folder: Path, copied: Path) -> Outcome:
    """What the training of `plan` in `folder` came to, where the files in `copied` are those that it left.

    Raises
    ------
    RetemperError
        They are not.
    """
    training = read_summary(folder, plan.key)
    why = "its summary is missing, damaged or of another training"
    if training is not None:
        why = sealed.difference(copied, training.files)
        if not why:
            return training.outcome
    raise RetemperError(
        f"The training of seed {plan.seed} in {folder} is not as it was left: {why}.",
        fix="run the stage again: what is damaged is put aside and trained again",
    )
