"""Two users of one store, and two projects on one server."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import servers
import yaml
from conftest import build_tiny
from run_files import history, write_evaluation, write_training
from trained_projects import all_runs, start, write_trained

from retemper.cli import main
from retemper.config.project import Project
from retemper.config.settings import Settings, load_settings
from retemper.core.errors import RetemperError
from retemper.records.registration import Registration
from retemper.registry import aliases, register
from retemper.registry import history as moves_of
from retemper.registry.client import Registry
from retemper.tracking import lineage, lock, runs
from retemper.tracking.store import connect


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
