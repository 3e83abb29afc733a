"""Studies of foundations without labels of their pretraining domain: drift stands where retention would."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from study_project import empty_project, make_project, runs, study, write_result
from study_tables import levels
from study_tables import table as synthetic

from retemper.advise import evidence
from retemper.data.frames import is_isolated_atom, read_frames, write_frames
from retemper.study import groups, report, run, table

VALUES = {"target.force_rmse": 50.0, "target.force_rmse.low": 45.0, "target.force_rmse.high": 55.0}
DRIFTED = {"drift.force_rmse": 20.0, "drift.force_rmse.low": 15.0, "drift.force_rmse.high": 25.0}
OF_HEAD = {"drift.energy_rmse": 2.0, "drift_replay_head.force_rmse": 5.0}
FOUNDATION = {"target.force_rmse": 400.0, "target.energy_rmse": 9.0}


def test_a_table_has_drift_where_runs_have_it(tmp_path: Path) -> None:
    root = empty_project(tmp_path)
    made, found = study(root), runs(root)
    for number, one in enumerate(found):
        more = DRIFTED if one.name == "naive" else {**DRIFTED, **OF_HEAD, "drift.force_rmse": 4.0 + number}
        write_result(one, values={**VALUES, **more}, foundation=FOUNDATION)
    content = table.make(made, found)
    first, last = content.iloc[0], content.iloc[-1]
    assert (first["drift_force_rmse"], first["drift_force_rmse_low"], first["drift_force_rmse_high"]) == (20, 15, 25)
    assert (last["drift_force_rmse"], last["drift_energy_rmse"], last["drift_replay_head_force_rmse"]) == (7, 2, 5)
    assert content["retention_force_rmse"].isna().all() and content["forgetting_ratio"].isna().all()
    report.write(made, found, root)
    text = (root / "studies/some/report.md").read_text()
    assert "| target forces | drift of forces | drift, replay head |" in text and "retention forces |" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("| salt | replay |")]
    assert "| 6.48 | 5 |" in line  # the geometric mean of 6 and 7
    assert (root / "studies/some/pareto.png").stat().st_size > 10_000
    assert list(table.read(root / "studies/some/table.csv")["drift_force_rmse"]) == list(content["drift_force_rmse"])


def test_a_table_with_retention_has_no_drift(tmp_path: Path) -> None:
    root = empty_project(tmp_path)
    made, found = study(root), runs(root)
    for one in found:
        write_result(one)
    assert not [column for column in table.make(made, found) if "drift" in column]


def test_groups_of_drift(tmp_path: Path) -> None:
    """Two groups: one frame of two atoms off by 3 meV/A, and two frames of one atom off by 1 and 7."""
    rows = [("a", 2, 3.0), ("b", 1, 1.0), ("b", 1, 7.0)]
    lines = ["seed,set,group,n_atoms,energy_error,force_rmse", *(f"1,drift,{g},{n},0,{f}" for g, n, f in rows)]
    (tmp_path / "frames.csv").write_text("\n".join(lines) + "\n")
    found = groups.run_groups(tmp_path / "frames.csv", 1)
    assert found.numbers == {"drift": 2} and found.cells == {"drift_force_rmse": "6:3 6:5"}


def test_advice_by_drift_where_no_run_has_retention() -> None:
    """Naive is better on the target by 0.4, and drifts by 0.7 more: worse where what is kept counts alike or more."""
    effects = {
        "target_force_rmse": {("strategy", "naive"): -0.4},
        "retention_force_rmse": {("strategy", "replay"): -0.7},
    }
    made = synthetic(levels(strategy=("naive", "replay"), seed=(1,)), np.random.default_rng(0), effects, noise=0.01)
    made = made.assign(train=made["size"], study="some")
    drifted = made.assign(drift_force_rmse=made["retention_force_rmse"], retention_force_rmse=math.nan)
    for scope, first in (("single-system", "naive"), ("family", "replay"), ("broad", "replay")):
        ranking = evidence.ranking(drifted, scope)
        assert ranking is not None and ranking.levels[0] == first
        assert ranking == evidence.ranking(made, scope)
    half = drifted.copy()
    with_labels = half["system"] == "nacl"
    half.loc[with_labels, "retention_force_rmse"] = made.loc[with_labels, "retention_force_rmse"]
    assert set(evidence.score_runs(half, "family")["system"]) == {"nacl"}  # the two are never mixed


@pytest.mark.slow
def test_a_study_of_a_foundation_without_structures(tiny_model: Path, tmp_path: Path) -> None:
    """From end to end: structures are generated, and what is kept is measured against the foundation's own forces."""
    frames = [a for a in read_frames(ROOT / "data/raw/nacl.extxyz.xz") if not is_isolated_atom(a)][::12][:18]
    write_frames(tmp_path / "frames.extxyz", frames)
    root = make_project(tmp_path / "project", tiny_model, tmp_path / "frames.extxyz")
    study(root, designs={"all": {"axes": {"strategy": ["naive", "pseudolabel-replay"]}}})
    run.run(root / "studies/some.yaml", root)
    rows = table.read(root / "studies/some/table.csv")
    assert list(rows["state"]) == ["finished"] * 2, list(rows["reason"])
    assert (rows["drift_force_rmse"] > 0).all() and (rows["drift_groups"] > 0).all()
    assert rows["drift_replay_head_force_rmse"].notna().tolist() == [False, True]
    assert (rows["drift_force_rmse_groups"] != "").all()
