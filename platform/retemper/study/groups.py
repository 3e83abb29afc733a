"""Errors of a run by group of structures, short enough for a cell of the results table.

A cell is ``count:error`` a group: what the squared error is divided by, and the root mean square of the group. Pairs
of runs are compared group by group, so a cell has all groups of the set, in alphabetical order; above `MOST` several
of them share an entry, which leaves them independent of the others.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from retemper.records.result import GroupErrors

MOST = 24  # entries of a cell
# column of the table: set and quantity in frames.csv
CELLS = {
    "target_energy_rmse": ("target", "energy"),
    "target_force_rmse": ("target", "force"),
    "retention_force_rmse": ("retention", "force"),
    "replay_head_force_rmse": ("retention_replay_head", "force"),
    "drift_force_rmse": ("drift", "force"),
}


def run_groups(frames: Path, seed: int) -> GroupErrors:
    """Cells and numbers of groups of one seed from the ``frames.csv`` of its evaluation."""
    with frames.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == str(seed)]
    cells, numbers = {}, {}
    for column, (part, quantity) in CELLS.items():
        set_rows = [row for row in rows if row["set"] == part]
        if set_rows:
            cells[column] = cell((row["group"], *_square(row, quantity)) for row in set_rows)
            numbers[part] = len({row["group"] for row in set_rows})
    return GroupErrors(cells=cells, numbers=numbers)


def _square(row: Mapping[str, str], quantity: str) -> tuple[float, float]:
    """Components of a frame, and the sum of their squared errors."""
    if quantity == "energy":
        return 1.0, float(row["energy_error"]) ** 2
    components = 3.0 * int(row["n_atoms"])
    return components, components * float(row["force_rmse"]) ** 2


def cell(frames: Iterable[tuple[str, float, float]]) -> str:
    """Of (group, count, sum of squares) of each frame."""
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for group, count, square in frames:
        sums[group] += (count, square)
    entries = np.zeros((min(MOST, len(sums)), 2))
    for k, group in enumerate(sorted(sums)):
        entries[k % len(entries)] += sums[group]
    return " ".join(f"{count:g}:{math.sqrt(square / count):.5g}" for count, square in entries)


def squares(text: str) -> np.ndarray:
    """[n, 2] counts and sums of squares by entry of a cell; none of an empty one."""
    entries = np.array([[float(x) for x in entry.split(":")] for entry in text.split()]).reshape(-1, 2)
    return np.column_stack([entries[:, 0], entries[:, 0] * entries[:, 1] ** 2])
