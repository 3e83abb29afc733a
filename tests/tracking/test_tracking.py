"""Runs in MLflow: live, after a kill, without a server, and rebuilt from files."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import sqlite3
import time
import warnings
from pathlib import Path
from typing import Any

import prepared
import pytest
from run_files import history, write_evaluation, write_preparation, write_project, write_table, write_training

from retemper.config.settings import Settings
from retemper.core.errors import RetemperError
from retemper.tracking import runs as tracking
from retemper.tracking.lineage import file_md5
from retemper.tracking.store import connect

SETTINGS = {"training": {"lr": 0.001, "ema_decay": None}, "replay": {"labels": "foundation", "weight": 1.0}}


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Settings]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path, write_project(tmp_path, tiny_model, ["naive", "pseudo"], [1, 2])


def start(root: Path, key: str = "k1", strategy: str = "naive") -> str:
    run_id = tracking.start_training(
        SETTINGS, experiment="test", system="salt", strategy=strategy, seed=1, root=root, key=key
    )
    assert run_id is not None
    return run_id


def all_runs(root: Path) -> list[Any]:
    client: Any = connect(root)
    return list(client.search_runs([client.get_experiment_by_name("test").experiment_id]))


def test_training_is_logged_with_its_data(project: tuple[Path, Settings]) -> None:
    root, _ = project
    (root / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  dataset:\n    cmd: x\n    outs:\n    - path: runs/dataset\n      hash: md5\n"
        "      md5: 0123456789abcdef0123456789abcdef.dir\n"
    )
    manifest = prepared.manifest(
        frames_read=46,
        rejected={"duplicate": 1, "dataset.energy_window": 6},
        unused={"beyond dataset.max_train": 5},
        rounds=[prepared.joined_round(6, 0, **{"dataset.energy_window": 6})],
    )
    manifest.write(root / "runs/dataset/manifest.json")
    run_id = start(root)
    for row in history(3):
        tracking.log_epoch(run_id, int(row["epoch"]), row)
    folder = root / "seed"
    write_table(folder / "history.csv", history(3))
    (folder / "mace.yaml").write_text("lr: 0.001\n")
    tracking.finish_training(run_id, folder, "FINISHED")

    client: Any = connect(root)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["dataset.labels"] == (
        "12 of 46 structures not used (duplicate 1, dataset.energy_window 6, beyond dataset.max_train 5); "
        "round 1: 0 of 6 labels used (dataset.energy_window 6)"
    )
    assert run.data.params == {
        "training.lr": "0.001",
        "training.ema_decay": "None",
        "replay.labels": "foundation",
        "replay.weight": "1.0",
    }
    assert [m.value for m in client.get_metric_history(run_id, "valid.force_rmse")] == pytest.approx(
        [row["valid.force_rmse"] for row in history(3)]
    )
    inputs = {entry.dataset.name: entry for entry in run.inputs.dataset_inputs}
    assert set(inputs) == {"train", "valid", "test", "pseudolabel", "pseudolabel-valid", "foundation"}
    assert inputs["train"].dataset.digest == file_md5(root / "runs/dataset/train.extxyz")
    assert "0123456789abcdef0123456789abcdef" in inputs["train"].dataset.source
    assert inputs["foundation"].dataset.digest == file_md5(root / "foundations/tiny.model")
    assert run.data.tags["dvc.runs/dataset"] == "0123456789abcdef0123456789abcdef"
    assert {artifact.path for artifact in client.list_artifacts(run_id)} == {
        "history.csv",
        "mace.yaml",
        "learning-curve.png",
    }
    assert run.info.artifact_uri.startswith((root / "mlartifacts").as_uri())


def test_killed_run_goes_on_as_the_same_run(project: tuple[Path, Settings]) -> None:
    root, _ = project
    run_id = start(root)
    rows = history(4)
    for row in rows[:3]:
        tracking.log_epoch(run_id, int(row["epoch"]), row)
    tracking._live.clear()  # what a new process knows

    assert start(root) == run_id
    for row in rows[2:]:  # the last epoch before the kill is trained again
        tracking.log_epoch(run_id, int(row["epoch"]), row)
    client = connect(root)
    assert sorted(m.step for m in client.get_metric_history(run_id, "train_loss")) == [0, 1, 2, 3]
    assert client.get_run(run_id).info.status == "RUNNING"
    assert start(root, key="k2") != run_id
    assert start(root, strategy="pseudo") != run_id  # the same settings under another name are another run


def test_log_epoch_is_cheap(project: tuple[Path, Settings]) -> None:
    root, _ = project
    run_id = start(root)
    tracking.log_epoch(run_id, 0, history(1)[0])
    cpu, wall = [], []
    for epoch in range(1, 21):
        before = time.process_time(), time.perf_counter()
        tracking.log_epoch(run_id, epoch, history(1)[0])
        cpu.append(time.process_time() - before[0])
        wall.append(time.perf_counter() - before[1])
    print(f"log_epoch: median {1e3 * sorted(cpu)[10]:.1f} ms CPU, {1e3 * sorted(wall)[10]:.1f} ms")
    assert sorted(cpu)[10] < 0.05


def test_no_server_is_a_warning_and_files_fill_in_later(
    project: tuple[Path, Settings], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, settings = project
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with pytest.warns(RuntimeWarning, match="does not take this run"):
        run_id = tracking.start_training(
            SETTINGS, experiment="test", system="salt", strategy="naive", seed=1, root=root, key="k"
        )
    assert run_id is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracking.log_epoch(run_id, 0, {"train_loss": 1.0})
        tracking.finish_training(run_id, root / "nowhere", "FINISHED")
    with pytest.raises(RetemperError, match="MLflow at http"):
        tracking.sync(root, settings)

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    write_training(root, "naive", {1: tiny_model})
    run_id = tracking.sync(root, settings)["naive"][1]
    assert len(connect(root).get_metric_history(run_id, "valid_loss")) == 5


def test_epochs_that_did_not_arrive_are_filled_in(
    project: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = project
    run_id = start(root)
    rows = history(4)
    tracking.log_epoch(run_id, 0, rows[0])
    database = root / "mlflow.db"
    shutil.move(database, root / "away.db")
    database.mkdir()  # a store that does not answer
    with pytest.warns(RuntimeWarning, match="Training goes on"):
        tracking.log_epoch(run_id, 1, rows[1])
    database.rmdir()
    shutil.move(root / "away.db", database)
    tracking.log_epoch(run_id, 2, rows[2])  # not sent: the run was given up until it ends
    write_table(root / "seed/history.csv", rows)
    tracking.finish_training(run_id, root / "seed", "FINISHED")
    values = {m.step: m.value for m in connect(root).get_metric_history(run_id, "train_loss")}
    assert values == pytest.approx({int(row["epoch"]): row["train_loss"] for row in rows})


def test_sync_builds_runs_once(project: tuple[Path, Settings], tiny_model: Path, tiny_multihead: Path) -> None:
    root, settings = project
    write_preparation(root)
    write_training(root, "naive", {1: tiny_model, 2: tiny_model})
    write_training(root, "pseudo", {1: tiny_multihead, 2: tiny_multihead}, replay="foundation")
    write_evaluation(root, "foundation", {0: 90.0}, {0: 50.0}, 50.0)
    write_evaluation(root, "naive", {1: 20.0, 2: 22.0}, {1: 400.0, 2: 500.0}, 50.0)
    write_evaluation(root, "pseudo", {1: 25.0, 2: 26.0}, {1: 80.0, 2: 90.0}, 50.0, replay_head={1: 55.0, 2: 56.0})
    runs = tracking.sync(root, settings)
    before = {run.info.run_id: (run.data.metrics, run.info.status) for run in all_runs(root)}
    assert len(before) == 5
    assert tracking.sync(root, settings) == runs
    assert {run.info.run_id: (run.data.metrics, run.info.status) for run in all_runs(root)} == before

    client = connect(root)
    metrics = client.get_run(runs["pseudo"][1]).data.metrics
    assert metrics["target.force_rmse"] == pytest.approx(25.0)
    assert metrics["target.force_rmse.low"] == pytest.approx(23.75)
    assert metrics["forgetting_ratio"] == pytest.approx(80.0 / 50.0)
    assert metrics["forgetting_ratio_replay_head"] == pytest.approx(55.0 / 50.0)
    assert metrics["target.force_rmse.salt"] == pytest.approx(30.0)
    assert metrics["trainable_share"] == pytest.approx(0.9)
    assert len(client.get_metric_history(runs["naive"][2], "target.force_rmse")) == 1
    plots = {artifact.path for artifact in client.list_artifacts(runs["naive"][1], "evaluate")}
    assert plots == {"evaluate/metrics.json", "evaluate/parity-target.png", "evaluate/parity-retention.png"}
    assert client.get_run(runs["foundation"][0]).data.metrics["retention.force_rmse"] == pytest.approx(50.0)

    write_evaluation(root, "naive", {1: 18.0, 2: 22.0}, {1: 400.0, 2: 500.0}, 50.0)  # evaluated again
    assert tracking.sync(root, settings) == runs
    assert client.get_run(runs["naive"][1]).data.metrics["target.force_rmse"] == pytest.approx(18.0)


def test_sync_completes_the_run_that_training_opened(project: tuple[Path, Settings], tiny_model: Path) -> None:
    root, settings = project
    write_training(root, "naive", {1: tiny_model})
    run_id = start(root, key="key-naive-1")
    tracking.log_epoch(run_id, 0, history(1, 1.05)[0])
    assert tracking.sync(root, settings)["naive"][1] == run_id
    assert len(connect(root).get_metric_history(run_id, "train_loss")) == 5


def test_trained_again_with_other_numbers_is_another_run(
    project: tuple[Path, Settings], tiny_model: Path, tiny_multihead: Path
) -> None:
    root, settings = project
    write_training(root, "naive", {1: tiny_model})
    first = tracking.sync(root, settings)["naive"][1]
    write_training(root, "naive", {1: tiny_multihead}, scale=2.0)
    second = tracking.sync(root, settings)["naive"][1]
    assert second != first
    assert connect(root).get_run(first).data.tags["retemper.superseded"] == second
    assert tracking.sync(root, settings)["naive"][1] == second


def test_trained_again_under_the_same_key(project: tuple[Path, Settings], tiny_model: Path) -> None:
    """Without its checkpoints a run may come out differently: its first history must not stand for the new model."""
    root, settings = project
    write_training(root, "naive", {1: tiny_model})
    first = start(root, key="key-naive-1")
    for row in history(5, 3.0):
        tracking.log_epoch(first, int(row["epoch"]), row)
    tracking.finish_training(first, root / "runs/finetune/naive/seed-1", "FINISHED")
    second = tracking.sync(root, settings)["naive"][1]
    assert second != first
    values = [metric.value for metric in connect(root).get_metric_history(second, "valid.force_rmse")]
    assert values == pytest.approx([row["valid.force_rmse"] for row in history(5, 1.05)])
    assert start(root, key="key-naive-1") not in (first, second)  # what is finished stays as it is
    assert connect(root).get_run(second).info.status == "FINISHED"


def _first_use(root: str, number: int) -> None:
    os.chdir(root)
    run_id = tracking.start_training(
        {}, experiment="test", system="salt", strategy="naive", seed=number, root=Path(root), key=str(number)
    )
    assert run_id is not None
    tracking.log_epoch(run_id, 0, {"train_loss": float(number)})


def test_processes_that_start_together_make_one_sound_store(project: tuple[Path, Settings]) -> None:
    root, _ = project
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_first_use, args=(str(root), number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sorted(run.data.metrics["train_loss"] for run in all_runs(root)) == [0.0, 1.0, 2.0]
    with sqlite3.connect(root / "mlflow.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    assert not list(root.glob(".*.mlflow.db"))
