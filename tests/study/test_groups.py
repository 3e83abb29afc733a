"""Errors by group in a cell of the results table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from retemper.evaluation.stage import FRAME_COLUMNS
from retemper.study import groups


def test_a_cell_gives_back_the_sums() -> None:
    """Frames of three groups in any order; the sums of squares come back to the digits that are written."""
    frames = [("b", 30.0, 270.0), ("a", 30.0, 30.0), ("b", 60.0, 90.0), ("c", 9.0, 1.0)]
    found = groups.squares(groups.cell(frames))
    assert found[:, 0].tolist() == [30.0, 90.0, 9.0]  # a, b, c
    assert found[:, 1] == pytest.approx([30.0, 360.0, 1.0], rel=1e-4)
    assert len(groups.squares("")) == 0


def test_many_groups_share_entries() -> None:
    """A thousand groups: a short cell, with the same sum of all."""
    squares = np.random.default_rng(0).gamma(2.0, 1.0, 1000)
    text = groups.cell((f"g{k}", 9.0, square) for k, square in enumerate(squares))
    assert len(text) < 400
    found = groups.squares(text)
    assert len(found) == groups.MOST and found.sum(axis=0) == pytest.approx([9000.0, squares.sum()], rel=1e-4)


def test_cells_of_an_evaluation(tmp_path: Path) -> None:
    """The columns that `evaluate` writes: force components and energies of one seed and set."""
    rows = [
        # seed, set, head, frame, n_atoms, config_type, group, energy_error, force_rmse
        ("1", "target", "Default", 0, 2, "a", "x", "3.0", "10.0"),
        ("1", "target", "Default", 1, 2, "a", "x", "4.0", "20.0"),
        ("1", "target", "Default", 2, 4, "a", "y", "1.0", "5.0"),
        ("2", "target", "Default", 2, 4, "a", "y", "100.0", "500.0"),
        ("1", "retention", "Default", 0, 1, "a", "z", "1.0", "7.0"),
    ]
    with (tmp_path / "frames.csv").open("w", newline="") as file:
        csv.writer(file).writerows([FRAME_COLUMNS, *rows])
    found = groups.run_groups(tmp_path / "frames.csv", 1)
    assert found.numbers == {"target": 2, "retention": 1}
    force, energy = (groups.squares(found.cells[f"target_{kind}_rmse"]) for kind in ("force", "energy"))
    assert force == pytest.approx(np.array([[12.0, 6 * 100.0 + 6 * 400.0], [12.0, 12 * 25.0]]), rel=1e-4)
    assert energy == pytest.approx(np.array([[2.0, 9.0 + 16.0], [1.0, 1.0]]), rel=1e-4)
    assert groups.squares(found.cells["retention_force_rmse"])[0] == pytest.approx([3.0, 147.0])
    assert "replay_head_force_rmse" not in found.cells
