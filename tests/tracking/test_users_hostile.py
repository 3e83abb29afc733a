"""Two users, two projects, interrupted repetitions: nobody's records are taken, doubled or lost."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import servers
import yaml
from conftest import build_tiny
from run_files import history, write_evaluation, write_preparation, write_project, write_table, write_training
from sweeps import command, environment, make_project

from retemper.cli import main
from retemper.config.project import Project
from retemper.config.settings import Settings, load_settings
from retemper.core.errors import RetemperError
from retemper.records.registration import Registration
from retemper.records.sweep import StudyData, SweepStudy
from retemper.records.training import TrainingSummary
from retemper.registry import aliases, register
from retemper.registry import history as moves_of
from retemper.registry.client import Registry
from retemper.tracking import lineage, lock, runs, sweeps
from retemper.tracking.store import PROCESS, connect

SETTINGS = {"training": {"lr": 0.001}}


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Settings]:
    """A trained and evaluated model, in no store yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "project"
    settings = write_trained(root, tiny_model)
    monkeypatch.chdir(root)
    return root, settings


def write_trained(root: Path, model: Path, seeds: tuple[int, ...] = (1,)) -> Settings:
    root.mkdir()
    settings = write_project(root, model, ["naive"], list(seeds))
    write_preparation(root)
    write_training(root, "naive", dict.fromkeys(seeds, model))
    write_evaluation(root, "foundation", {0: 90.0}, {0: 50.0}, 50.0)
    write_evaluation(root, "naive", {s: 30.0 + s for s in seeds}, dict.fromkeys(seeds, 100.0), 50.0)
    return settings


def start(root: Path, key: str = "key-naive-1") -> str:
    """A training that begins, in a process that knows of no other."""
    runs._live.clear()
    run_id = runs.start_training(
        SETTINGS, experiment="test", system="salt", strategy="naive", seed=1, root=root, key=key
    )
    assert run_id is not None
    return run_id


def all_runs(root: Path, experiment: str = "test") -> dict[str, Any]:
    client: Any = connect(root)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {run.info.run_id: run for run in found}


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


# ------------------------------------------------------------------ two users of one store


def _sync(root: str, uri: str, ready: Any) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = uri
    os.chdir(root)
    ready.wait(300)
    main.main(["sync"])


def side_by_side(roots: list[Path], uri: str) -> list[int | None]:
    """`retemper sync` in several folders at once."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(len(roots))
    workers = [context.Process(target=_sync, args=(str(root), uri, ready)) for root in roots]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [worker.exitcode for worker in workers]


def one_of_each(root: Path, versions: int) -> None:
    """Every model is one version, every seed one run, and no lock is left."""
    client: Any = connect(root)
    found = Registry(client, root).versions("salt")
    assert len(found) == len({version.model for version in found}) == versions
    names = [run.info.run_name for run in all_runs(root).values()]
    assert len(names) == len(set(names)) == versions + 1
    assert [model.name for model in client.search_registered_models()] == ["salt"]


@pytest.mark.hostile("users")
def test_two_users_sync_one_commit_into_one_database(
    project: tuple[Path, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, settings = project
    register.run(Project(root, settings), "naive")
    shared = tmp_path / "shared"
    shared.mkdir()
    shutil.copy(root / "mlflow.db", shared / "store.db")
    uri = f"sqlite:///{shared}/store.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client: Any = connect(root)
    client.delete_registered_model("salt")
    for run_id in all_runs(root):
        client.delete_run(run_id)
    other = tmp_path / "other"
    shutil.copytree(root, other, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    assert side_by_side([root, other], uri) == [0, 0]
    one_of_each(root, 1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """``mlflow server``; yields its variables, and where its log is."""
    folder = tmp_path_factory.mktemp("server")
    stores = ("--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts")
    with servers.mlflow(folder, *stores) as variables:
        yield variables | {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120", "log": str(folder / "log")}


@pytest.fixture
def on_server(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The server in the environment, emptied afterwards; yields its log."""
    for name in (*servers.NAMES, "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, server[name])
    yield Path(server["log"])
    client: Any = connect()
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            client.delete_run(run.info.run_id)


def requests(log: Path) -> int:
    time.sleep(0.5)
    return len(re.findall(r'"(GET|POST|PUT|PATCH|DELETE) /', log.read_text()))


def git(root: Path, *arguments: str) -> None:
    name = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", str(root), *name, *arguments], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.hostile("users")
def test_two_users_sync_one_commit_to_a_server(
    project: tuple[Path, Settings], tmp_path: Path, on_server: Path, server: dict[str, str], tiny_model: Path
) -> None:
    """No version twice, no run twice, no error; with nothing to do few requests, however many models there are."""
    root, _ = project
    seeds = (1, 2, 3)
    models = {seed: build_tiny(tmp_path / f"{seed}.model", ["Default"], seed=seed) for seed in seeds}
    write_training(root, "naive", models)
    write_evaluation(root, "naive", {s: 30.0 + s for s in seeds}, dict.fromkeys(seeds, 100.0), 50.0)
    Registration(model="salt", versions={1: "1"}, force_rmse=1.0, test_md5="").write(root / "runs/register/naive.json")
    other = tmp_path / "other"
    shutil.copytree(root, other)
    assert side_by_side([root, other], server["MLFLOW_TRACKING_URI"]) == [0, 0]
    one_of_each(root, len(seeds))
    before = requests(on_server)
    main.main(["sync"])
    assert requests(on_server) - before <= 30


@pytest.mark.slow
@pytest.mark.hostile("users")
def test_two_projects_of_one_name_on_one_server(
    project: tuple[Path, Settings], tmp_path: Path, on_server: Path, tiny_multihead: Path, monkeypatch: Any
) -> None:
    """The second is told; versions, aliases and history of the first stay as they are; a clone is no second."""
    root, settings = project
    for each, model in ((root, None), (tmp_path / "second", tiny_multihead)):
        if model is not None:
            write_trained(each, model)
        git(each, "init", "-q")
        git(each, "add", "params.yaml")
        git(each, "commit", "-qm", f"begin {each.name}")
    second = tmp_path / "second"
    register.run(Project(root, settings), "naive")
    aliases.move(root, "salt", "champion", "1", "override", "first")
    for command_of_second in (
        lambda: register.run(Project(second, load_settings(second / "params.yaml")), "naive"),
        lambda: aliases.move(second, "salt", "champion", None, "override", "mine"),
        lambda: aliases.rollback(second, "salt", "mine"),
    ):
        with pytest.raises(RetemperError, match="belongs to another project"):
            command_of_second()
    assert len(aliases.current(second, "salt")[0]) == 1  # it may look
    assert not (second / moves_of.FILE).exists()
    held = aliases.current(root, "salt")[1]["champion"]
    assert held is not None and held.version == "1"
    git(tmp_path, "clone", "-q", str(root), "clone")
    assert lineage.project_identity(tmp_path / "clone") == lineage.project_identity(root)
    params = yaml.safe_load((second / "params.yaml").read_text())
    params["tracking"]["project"] = lineage.project_identity(root)
    (second / "params.yaml").write_text(yaml.safe_dump(params))
    assert register.run(Project(second, load_settings(second / "params.yaml")), "naive").versions == {1: "2"}


@pytest.mark.slow
@pytest.mark.hostile("users")
def test_two_users_train_one_commit_at_once(project: tuple[Path, Settings], tmp_path: Path, on_server: Path) -> None:
    """Each has a run; neither writes into the other's."""
    root, _ = project
    other = tmp_path / "other"
    shutil.copytree(root, other)
    first = start(root)
    runs.log_epoch(first, 0, history(1)[0])
    second = start(other)
    assert second != first
    assert start(root) == first and start(other) == second


@pytest.mark.slow
@pytest.mark.hostile("users")
def test_a_lock_whose_holder_lives_is_not_taken(
    project: tuple[Path, Settings], on_server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signs of life keep it, whatever the clocks say; without them it is taken over."""
    root, _ = project
    for name, value in (("BEAT", 0.3), ("STALE", 2.0), ("PATIENCE", 4.0)):
        monkeypatch.setattr(lock, name, value)
    client: Any = connect(root)
    with lock._server_lock(client, "salt"), pytest.raises(RetemperError, match="for more than"):
        lock._acquire(client, "salt", f"{lock.LOCK_MODEL}salt", "another")
    client.create_registered_model(f"{lock.LOCK_MODEL}salt", tags={"holder": "gone", "since": f"{time.time() + 999}"})
    lock._acquire(client, "salt", f"{lock.LOCK_MODEL}salt", "another")
    lock._delete_lock(client, f"{lock.LOCK_MODEL}salt")


@pytest.mark.slow
@pytest.mark.hostile("users")
def test_a_lock_that_is_let_go_while_another_asks_for_it(tmp_path: Path) -> None:
    """It may be gone when the server goes to look whose it is: then it is free, and nothing has failed."""
    from mlflow import MlflowClient

    inside: list[int] = []
    store = ("--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path))
    with servers.open_mlflow(tmp_path, *store) as variables:
        client = MlflowClient(*2 * tuple(variables.values()))

        def hold(number: int) -> int:
            for _ in range(25):
                with lock._server_lock(client, "salt"):
                    inside.append(number)
                    assert inside == [number]
                    inside.remove(number)
            return number

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(hold, range(4))) == [0, 1, 2, 3]


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
