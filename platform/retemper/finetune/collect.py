"""What finished trainings of one strategy leave in ``runs/finetune/<strategy>``: models, histories, proofs, summary."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retemper import lineage
from retemper.files import atomic_folder, write_json
from retemper.finetune.plan import Plan

FILES = ("model.model", "history.csv", "effective.json", "mace.yaml")


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
    """
    with atomic_folder(root / "runs/finetune" / strategy) as out:
        for plan, folder in zip(plans, folders, strict=True):
            (out / f"seed-{plan.seed}").mkdir()
            for name in FILES:
                shutil.copy2(folder / name, out / f"seed-{plan.seed}" / name)
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
