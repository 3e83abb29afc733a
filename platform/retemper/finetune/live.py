"""Trainings while they run, for `dvc plots` and editors: ``runs/live/<strategy>.csv``, a row an epoch and seed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from retemper.config.project import Project
from retemper.core.files import atomic_write


def write(project: Project, strategy: str, folders: Mapping[int, Path]) -> None:
    """Bring the table of a strategy up to the histories in `folders` (a seed each); those not begun are left out."""
    rows = [
        {"strategy": strategy, "seed": str(seed), **row}
        for seed, folder in folders.items()
        if (folder / "history.csv").is_file()
        for row in _rows(folder / "history.csv")
    ]
    columns = list(dict.fromkeys(["strategy", "seed", "epoch", *(name for row in rows for name in row)]))
    with atomic_write(project.live(strategy)) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
