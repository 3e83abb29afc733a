"""Trainings while they run, where `dvc plots`, `dvc metrics` and editors look: every epoch, and the last of each seed.

====================================  =================================================================
``runs/live/curves/<strategy>.csv``   every epoch so far of every seed, as in ``history.csv``
``runs/live/metrics.json``            the last epoch by strategy and seed
====================================  =================================================================
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from retemper.config.project import Project
from retemper.core.files import atomic_write, write_json

NAMED = ("strategy", "seed")  # columns before those of the history


def write(project: Project, strategy: str, folders: Mapping[int, Path]) -> None:
    """Bring ``runs/live`` up to the histories in `folders` (a seed each); those that have not begun are left out."""
    rows = [
        {"strategy": strategy, "seed": str(seed), **row}
        for seed, folder in folders.items()
        if (folder / "history.csv").is_file()
        for row in _rows(folder / "history.csv")
    ]
    columns = list(dict.fromkeys([*NAMED, *(name for row in rows for name in row)]))
    with atomic_write(project.live / f"curves/{strategy}.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_json(project.live / "metrics.json", _last_epochs(project.live / "curves"))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _last_epochs(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    last: dict[str, dict[str, dict[str, float]]] = {}
    for path in sorted(folder.glob("[!.]*.csv")):
        for row in _rows(path):
            numbers = {name: float(text) for name, text in row.items() if name not in NAMED and text}
            last.setdefault(row["strategy"], {})[f"seed-{row['seed']}"] = numbers
    return last
