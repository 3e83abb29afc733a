"""``ray job submit`` to a head with two worker nodes that share no disk with the driver."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import cluster, submit
from conftest import ROOT
from sweeps import make_project, stage

from retemper.files import read_json


@pytest.mark.slow
def test_submitted_job(files: dict[str, Any], tmp_path: Path) -> None:
    """The code travels, the data stay with the project, trials run on both workers, results are the stage's outputs."""
    root = make_project(tmp_path / "project", files, trials=4, prune=False)
    laptop = tmp_path / "laptop"  # what travels: code and settings, no runs/
    for name in ("pipelines", "strategies", "platform/retemper"):
        shutil.copytree(ROOT / name, laptop / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "params.yaml", laptop / "params.yaml")
    with cluster(tmp_path) as address:
        done = submit(address, tmp_path, laptop, "python", "-m", "pipelines.sweep", "naive", RETEMPER_ROOT=str(root),
                      MLFLOW_TRACKING_URI=f"sqlite:///{root / 'mlflow.db'}")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial" in done.stdout and not (laptop / "runs").exists()
    with (root / "runs/sweep/naive/trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["complete"] * 4
    used = [node for node in ("one", "two") if list((tmp_path / f"scratch-{node}/training").glob("*/summary.json"))]
    assert used == ["one", "two"]
    for node in used:  # each file once a node, by content
        assert len(list((tmp_path / f"scratch-{node}/files").glob("*.model"))) == 1
    best = yaml.safe_load((root / "runs/sweep/naive/best.yaml").read_text())
    home = root / ".cache/training" / best["provenance"]["training"]
    assert read_json(home / "summary.json")["sha256"] == best["provenance"]["model_sha256"]
    stage(root, "finetune", "naive")  # at home: the winner is taken over
    summary = read_json(root / "runs/finetune/naive/summary.json")
    assert summary["seeds"]["3"]["sha256"] == best["provenance"]["model_sha256"]
