"""``ray job submit`` to a head with two worker nodes that share no disk with the driver.

MLflow is a server with passwords, its runs in PostgreSQL and its artifacts in an S3 object store.
"""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import servers
import yaml
from clusters import cluster, submit
from conftest import ROOT
from servers import BUCKET, NAMES
from sweeps import environment, make_project, stage, write_params

from retemper.core.files import read_json
from retemper.records.training import TrainingSummary
from retemper.tracking.store import _client

STRATEGY = "naive-interpolated"  # its trials look at every kind of file that a trial looks at


def dvc(root: Path, *arguments: str) -> str:
    """What DVC prints."""
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment(), capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def tracking(tmp_path: Path) -> Any:
    """Variables of a client of the tracking server, and the folder behind its object store."""
    for name in ("objects", "tracking"):
        (tmp_path / name).mkdir()
    with (
        servers.postgresql() as database,
        servers.object_store(tmp_path / "objects") as store,
        servers.mlflow(
            tmp_path / "tracking", "--backend-store-uri", database, "--artifacts-destination", f"s3://{BUCKET}", **store
        ) as variables,
    ):
        yield variables, tmp_path / "objects/objects" / BUCKET, database


@pytest.mark.slow
def test_submitted_job(files: dict[str, Any], tmp_path: Path, tracking: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code travels, the data stay with the project, trials run on both workers, results are the stage's outputs."""
    variables, bucket, database = tracking
    root = make_project(tmp_path / "project", files, trials=4, prune=False)
    for name in ("dvc.yaml", "pipelines", "data"):
        (root / name).symlink_to(ROOT / name)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["strategies"] = [STRATEGY]
    params["dataset"]["files"] = ["data/raw/nacl.extxyz.xz"]  # the sets are there; the file must be too
    write_params(root, params)
    dvc(root, "init", "--no-scm", "--quiet")
    laptop = tmp_path / "laptop"  # what travels: code and settings, no runs/
    for name in ("pipelines", "strategies", "platform/retemper"):
        shutil.copytree(ROOT / name, laptop / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "params.yaml", laptop / "params.yaml")
    with cluster(tmp_path, **variables) as address:
        done = submit(address, tmp_path, laptop, "python", "-m", "pipelines.sweep", STRATEGY, RETEMPER_ROOT=str(root))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial" in done.stdout and not (laptop / "runs").exists()
    with (root / "runs/sweep" / STRATEGY / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["complete"] * 4
    used = [node for node in ("one", "two") if list((tmp_path / f"scratch-{node}/training").glob("*/summary.json"))]
    assert used == ["one", "two"]
    for node in used:  # each file once a node, by content
        assert len(list((tmp_path / f"scratch-{node}/files").glob("*.model"))) == 1
    best = yaml.safe_load((root / "runs/sweep" / STRATEGY / "best.yaml").read_text())
    home = root / ".cache/training" / best["provenance"]["training"]
    assert read_json(home / "summary.json")["sha256"] == best["provenance"]["model_sha256"]

    for name in NAMES:
        monkeypatch.setenv(name, variables[name])
    assert in_the_store(variables["MLFLOW_TRACKING_URI"], rows) > 0
    assert [path.name for path in bucket.rglob("best.yaml")] == ["best.yaml"]
    count = "import sys, sqlalchemy as s; print(s.create_engine(sys.argv[1]).connect().execute(s.text('select count(*) "
    count += "from runs')).scalar())"
    assert subprocess.check_output([sys.executable, "-c", count, database], text=True).strip() == "5"
    secret = variables["MLFLOW_TRACKING_PASSWORD"]
    assert secret not in done.stdout + done.stderr
    assert not [path for path in root.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]

    dvc(root, "repro", "inputs")
    dvc(root, "commit", "-f", f"sweep@{STRATEGY}")
    assert "didn't change, skipping" in dvc(root, "repro", "--single-item", f"sweep@{STRATEGY}")
    stage(root, "finetune", STRATEGY)  # at home: the winner is taken over
    summary = TrainingSummary.read(root / "runs/finetune" / STRATEGY / "summary.json")
    assert summary.seeds[3].sha256 == best["provenance"]["model_sha256"]


def in_the_store(uri: str, rows: list[dict[str, str]]) -> int:
    """Epochs that the trials' runs hold; the parent is finished, each trial is nested below it with its values."""
    from mlflow import MlflowClient

    _client.cache_clear()
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("sweeps").experiment_id])  # type: ignore[union-attr]
    (parent,) = [run for run in found if run.data.tags["retemper.kind"] == "sweep"]
    trials = {run.data.tags["retemper.trial"]: run for run in found if run.data.tags["retemper.kind"] == "trial"}
    assert parent.info.status == "FINISHED" and sorted(trials) == sorted(row["trial"] for row in rows)
    epochs = 0
    for row in rows:
        run = trials[row["trial"]]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id and run.info.status == "FINISHED"
        assert run.data.metrics["sweep.target"] == pytest.approx(float(row["target"]), rel=1e-7)  # the table rounds
        epochs += len(client.get_metric_history(run.info.run_id, "train_loss"))
    assert {artifact.path for artifact in client.list_artifacts(parent.info.run_id)} >= {"best.yaml", "front.csv"}
    return epochs
