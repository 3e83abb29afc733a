"""What finished trainings leave: each in its own folder, and those of a strategy in ``runs/finetune/<strategy>``.

A training's folder says by key and checksums what lies in it, so that a damaged file, or one of another training, is
noticed before anything reads it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retemper.core import sealed, weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, write_json
from retemper.finetune.plan import Plan
from retemper.tracking import lineage

FILES = (weight_files.NAME, "history.csv", "effective.json", "mace.yaml")
SUMMARY = "summary.json"


def finish(folder: Path, key: str, summary: dict[str, Any]) -> None:
    """Write the summary of the training `key`, with checksums of its `FILES`: from now on it is finished."""
    sealed.write_json(folder / SUMMARY, key, {**summary, "files": sealed.hashes(folder, FILES)})


def finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The summary of the training `key`; `None` where it is not finished, or where not all is as it was left.

    What is damaged or of another training is put aside.
    """
    summary: dict[str, Any] | None = sealed.read_json(folder / SUMMARY, key)
    if summary is None:
        return None
    sound = True
    for name, expected in summary.pop("files").items():
        why = sealed.difference(folder, {name: expected})
        if why:
            sealed.put_aside(folder / name if os.path.lexists(folder / name) else folder / SUMMARY, why)
            sound = False
    return summary if sound else None


def collect(
    root: Path,
    strategy: str,
    foundation: str,
    plans: Sequence[Plan],
    folders: Sequence[Path],
    summaries: Sequence[dict[str, Any]],
    found: dict[str, Any],
) -> None:
    """Write ``runs/finetune/<strategy>`` below `root`, whole or not at all.

    Parameters
    ----------
    root
        Project with ``runs``.
    strategy, foundation
        Names.
    plans, folders, summaries
        A plan a seed, the folder where it was trained, and what `worker.train` returned.
    found
        Settings that a sweep found, by dotted path; empty without one.

    Raises
    ------
    RetemperError
        What lies in a folder is not what its training left there.
    """
    with atomic_folder(root / "runs/finetune" / strategy) as out:
        for plan, folder in zip(plans, folders, strict=True):
            (out / f"seed-{plan.seed}").mkdir()
            for name in FILES:
                shutil.copy2(folder / name, out / f"seed-{plan.seed}" / name)
            _require_own(plan, folder, out / f"seed-{plan.seed}")
        write_json(
            out / "summary.json",
            {
                "strategy": strategy,
                "foundation": foundation,
                "settings": plans[0].strategy,
                "found_by_sweep": found,
                "origin": lineage.origin(root),
                "seeds": {
                    str(plan.seed): {**summary, "ended": (folder / "history.csv").stat().st_mtime}  # s since 1970
                    for plan, folder, summary in zip(plans, folders, summaries, strict=True)
                },
            },
        )


def _require_own(plan: Plan, folder: Path, copied: Path) -> None:
    """Raise unless the files in `copied` are those that the training of `plan` left in `folder`."""
    summary = sealed.read_json(folder / SUMMARY, plan.key)
    why = "its summary is missing, damaged or of another training"
    if summary is not None:
        why = sealed.difference(copied, summary["files"])
    if why:
        raise RetemperError(
            f"The training of seed {plan.seed} in {folder} is not as it was left: {why}.",
            fix="run the stage again: what is damaged is put aside and trained again",
        )
