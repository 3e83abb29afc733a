"""Interrupted repetitions, and trainings and sweeps that are killed: no record is taken, doubled or lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import servers
import yaml
from run_files import history, write_table, write_training
from sweeps import command, environment, make_project
from trained_projects import all_runs, start

from retemper.cli import main
from retemper.config.project import Project
from retemper.config.settings import Settings, load_settings
from retemper.records.sweep import StudyData, SweepStudy
from retemper.records.training import TrainingSummary
from retemper.registry import register
from retemper.tracking import runs, sweeps
from retemper.tracking.store import PROCESS, connect

# ------------------------------------------------------------------ running again


def _interrupted(root: Path, run_id: str) -> None:
    """Killed after an epoch, without a word."""
    runs.log_epoch(run_id, 0, history(1, 1.05)[0])


def _failed(root: Path, run_id: str) -> None:
    runs.log_epoch(run_id, 0, history(1, 1.05)[0])
    write_table(root / "seed/history.csv", history(1, 1.05))
    runs.finish_training(run_id, root / "seed", "FAILED")


def _stopped(root: Path, run_id: str) -> None:
    write_table(root / "seed/history.csv", history(2, 1.05))
    runs.finish_training(run_id, root / "seed", "KILLED")


def _other_numbers(root: Path, run_id: str) -> None:
    runs.log_epoch(run_id, 0, history(1, 7.0)[0])
    write_table(root / "seed/history.csv", history(3, 9.0))
    runs.finish_training(run_id, root / "seed", "FAILED")


ENDS: dict[str, Callable[[Path, str], None]] = {
    "interrupted": _interrupted,
    "failed": _failed,
    "stopped": _stopped,
    "other numbers": _other_numbers,
}


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("end", ENDS)
def test_a_repetition_leaves_the_finished_run_alone(project: tuple[Path, Settings], end: str) -> None:
    """The run behind a registered version is what it was, to the tag; the attempt is a run of its own."""
    root, settings = project
    register.run(Project(root, settings), "naive")
    client: Any = connect(root)
    version = client.get_model_version("salt", "1")
    before = client.get_run(version.run_id).to_dictionary()
    again = start(root)
    assert again != version.run_id
    ENDS[end](root, again)
    assert client.get_run(version.run_id).to_dictionary() == before
    assert before["info"]["status"] == "FINISHED"
    main.main(["sync"])  # the files that were checked out again
    assert client.get_run(version.run_id).to_dictionary() == before
    assert len(client.search_model_versions("name = 'salt'")) == 1


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("end", ["interrupted", "failed", "stopped"])
def test_an_attempt_goes_on_as_itself(project: tuple[Path, Settings], end: str) -> None:
    root, settings = project
    register.run(Project(root, settings), "naive")
    again = start(root)
    ENDS[end](root, again)
    assert start(root) == again


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("same", [True, False])
def test_a_repetition_that_ends(project: tuple[Path, Settings], tiny_multihead: Path, same: bool) -> None:
    """The same weights: the first run stays the one. Others: the new run follows, and the old keeps its status."""
    root, settings = project
    register.run(Project(root, settings), "naive")
    client: Any = connect(root)
    first = client.get_model_version("salt", "1").run_id
    again = start(root)
    if not same:
        write_training(root, "naive", {1: tiny_multihead}, scale=2.0)
    runs.finish_training(again, root / "runs/finetune/naive/seed-1", "FINISHED")
    old, new = client.get_run(first), client.get_run(again)
    assert old.info.status == new.info.status == "FINISHED"
    superseded = [run.data.tags.get("retemper.superseded") for run in (old, new)]
    assert superseded == ([None, first] if same else [again, None])
    record = register.run(Project(root, settings), "naive")
    assert record.versions == {1: "1" if same else "2"}
    assert client.get_model_version("salt", record.versions[1]).run_id == (first if same else again)
    assert len(all_runs(root)) == 3  # these two and the foundation's


@pytest.mark.hostile("registry")
def test_going_back_to_the_first_model(project: tuple[Path, Settings], tiny_multihead: Path, tmp_path: Path) -> None:
    """Trained again with other numbers, then the earlier commit checked out: its run is there and current."""
    root, settings = project
    shutil.copytree(root / "runs", tmp_path / "earlier")
    first = register.run(Project(root, settings), "naive")
    run_id = runs.sync(root, settings)["naive"][1]
    write_training(root, "naive", {1: tiny_multihead}, scale=2.0)
    register.run(Project(root, settings), "naive")
    shutil.rmtree(root / "runs")
    shutil.copytree(tmp_path / "earlier", root / "runs")
    assert register.run(Project(root, settings), "naive") == first
    assert runs.sync(root, settings)["naive"][1] == run_id
    assert "retemper.superseded" not in connect(root).get_run(run_id).data.tags


@pytest.mark.hostile("registry")
def test_runs_of_processes_that_died_do_not_stay_running(project: tuple[Path, Settings]) -> None:
    root, settings = project
    dead, living, elsewhere = start(root, "k1"), start(root, "k2"), start(root, "k3")
    client: Any = connect(root)
    host, number, since = client.get_run(dead).data.tags[PROCESS].split()
    client.set_tag(dead, PROCESS, f"{host} {number} {float(since) - 500:.0f}")  # the number was given again
    client.set_tag(elsewhere, PROCESS, f"another-machine {number} {float(since) - 500:.0f}")
    runs.sync(root, settings)
    assert [client.get_run(each).info.status for each in (dead, living, elsewhere)] == ["KILLED", "RUNNING", "RUNNING"]


@pytest.mark.hostile("registry")
def test_a_rebuilt_run_is_as_the_live_one(project: tuple[Path, Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters, and start and end as they were, however late the store is rebuilt."""
    root, settings = project
    path = root / "runs/finetune/naive/summary.json"
    summary = TrainingSummary.read(path)
    summary.seeds[1].ended, summary.seeds[1].seconds = 1.7e9, 23.0
    summary.write(path)
    live = {"system": "salt", "foundation": "tiny", **summary.settings.model_dump(), "epochs": 5}
    run_id = runs.start_training(live, experiment="live", system="salt", strategy="naive", seed=1, root=root, key="k")
    rebuilt = runs.sync(root, settings)["naive"][1]
    client: Any = connect(root)
    run = client.get_run(rebuilt)
    assert run.data.params == client.get_run(run_id).data.params
    assert (run.info.start_time, run.info.end_time) == (1_699_999_977_000, 1_700_000_000_000)


@pytest.mark.hostile("registry")
def test_logged_models_show_their_version(project: tuple[Path, Settings]) -> None:
    """In the embedded store as on a server, also for what an earlier version of retemper registered."""
    root, settings = project
    register.run(Project(root, settings), "naive")
    client: Any = connect(root)
    model_id = client.get_model_version("salt", "1").source.removeprefix("models:/")
    assert client.get_logged_model(model_id).tags["mlflow.modelVersions"] == '[{"name": "salt", "version": 1}]'
    client.delete_logged_model_tag(model_id, "mlflow.modelVersions")
    main.main(["sync"])
    assert "mlflow.modelVersions" in client.get_logged_model(model_id).tags


# ------------------------------------------------------------------ real trainings and sweeps, killed


@pytest.mark.slow
@pytest.mark.hostile("kills")
def test_a_real_training_killed_while_it_runs_again(tmp_path: Path, files: dict[str, Any]) -> None:
    """The finished run keeps its status, its numbers and its files; the same command then ends as if nothing was."""
    root = make_project(tmp_path / "project", files)
    run = command("finetune", "naive")
    subprocess.run(run, cwd=root, env=environment(), check=True, capture_output=True)
    ((first, before),) = all_runs(root, "sweeps").items()
    assert before.info.status == "FINISHED"
    shutil.rmtree(root / ".cache/training")
    shutil.rmtree(root / "runs/finetune")
    process = subprocess.Popen(run, cwd=root, env=environment(), start_new_session=True)
    servers.wait_for(lambda: any((root / ".cache/training").glob("*/history.csv")), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found = all_runs(root, "sweeps")
    assert len(found) == 2 and found[first].to_dictionary() == before.to_dictionary()
    subprocess.run(run, cwd=root, env=environment(), check=True, capture_output=True)
    found = all_runs(root, "sweeps")
    assert len(found) == 2 and {each.info.status for each in found.values()} == {"FINISHED"}
    assert [each.data.tags.get("retemper.superseded") for each in found.values()].count(None) == 1


@pytest.mark.slow
@pytest.mark.hostile("kills")
def test_trials_of_a_stopped_sweep_do_not_stay_running(tmp_path: Path, files: dict[str, Any]) -> None:
    """Killed with its workers while trials train: `retemper sync` closes their runs."""
    root = make_project(tmp_path / "project", files, trials=4, prune=False, concurrent=2)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["finetune"]["epochs"] = 50
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    process = subprocess.Popen(command("sweep", "naive"), cwd=root, env=environment(), start_new_session=True)
    try:
        servers.wait_for(lambda: any((root / ".cache/training").glob("*/history.csv")), process)
    finally:
        whole = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in whole:
            one.kill()
        process.wait()
    assert "RUNNING" in {run.info.status for run in all_runs(root, "sweeps").values()}
    runs.sync(root, load_settings(root / "params.yaml"))
    assert {run.info.status for run in all_runs(root, "sweeps").values()} == {"KILLED"}


def test_a_sweep_that_nobody_works_on(project: tuple[Path, Settings]) -> None:
    """Taken up again, a sweep closes what its killed predecessor left, on whatever machine that was."""
    root, settings = project
    here = Project(root, settings)
    data = StudyData(target=["t", "v"], replay=None, foundation_sha256="0" * 64)
    about = SweepStudy(
        study="abc", seed=1, space={}, strategy="naive", foundation="tiny", data=data, retention=None,
        objectives=["target"], epochs=2, default="k", family="f",
    )  # fmt: skip
    strategy = TrainingSummary.read(here.summary("naive")).settings
    sweep = sweeps.start_sweep(here, about)
    trial = sweeps.start_trial(sweep, here, sweeps.TrialSettings(0, strategy, 2, {}, "t"))
    assert sweep is not None and trial is not None
    connect(root).set_tag(trial, PROCESS, "another-machine 1 1")
    assert sweeps.start_sweep(here, about) == sweep
    assert connect(root).get_run(trial).info.status == "KILLED"
    assert connect(root).get_run(sweep).info.status == "RUNNING"
