"""A tracking server with passwords: who may move aliases, one at a time, and no secret anywhere."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import yaml
from conftest import build_tiny
from mace.calculators import MACECalculator
from promoted import judge
from run_files import water_frames, write_evaluation, write_preparation, write_project, write_training
from servers import NAMES

import retemper
from retemper.config.project import Project
from retemper.config.settings import Settings, load_settings
from retemper.core.errors import RetemperError
from retemper.promotion import views
from retemper.registry import aliases, history, register
from retemper.tracking import lock
from retemper.tracking.store import _client, connect

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """``mlflow server`` with basic authentication; yields the variables that its administrator sets."""
    folder = tmp_path_factory.mktemp("server")
    stores = ("--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts")
    with servers.mlflow(folder, *stores) as variables:
        yield variables | {"folder": str(folder)}


@pytest.fixture(scope="module")
def registered(
    server: dict[str, str], tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[tuple[Path, Settings]]:
    """A project with versions 1, 2, 3 of ``salt`` (seeds of naive) on the server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setenv(name, server[name])
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # a busy machine
        root = tmp_path_factory.mktemp("project")
        write_project(root, tiny_model, ["naive"], [1, 2, 3])
        write_preparation(root)
        models = {seed: build_tiny(root / f"{seed}.model", ["Default"], seed=seed) for seed in (1, 2, 3)}
        write_training(root, "naive", models)
        write_evaluation(root, "foundation", {0: 90.0}, {0: 50.0}, 50.0)
        write_evaluation(root, "naive", {1: 30.0, 2: 31.0, 3: 32.0}, {1: 100.0, 2: 101.0, 3: 102.0}, 50.0)
        params = yaml.safe_load((root / "params.yaml").read_text())
        params["promotion"] = {"gates": [{"metric": "target.force_rmse", "max": 60.0}]}
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        settings = load_settings(root / "params.yaml")
        register.run(Project(root, settings), "naive")
        yield root, settings


@pytest.fixture
def project(
    registered: tuple[Path, Settings], server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The registered project, nothing promoted; what a test promotes is taken back after it."""
    root, _ = registered
    monkeypatch.chdir(root)
    yield root
    for name in NAMES:
        monkeypatch.setenv(name, server[name])
    _client.cache_clear()
    client: Any = connect(root)
    found = client.get_registered_model("salt")
    for alias in [alias for alias in dict(found.aliases) if alias != "candidate"]:
        client.delete_registered_model_alias("salt", alias)
    for tag in found.tags:
        client.delete_registered_model_tag("salt", tag)
    (root / "promotions.jsonl").unlink(missing_ok=True)


def test_register_promote_load(project: Path, registered: tuple[Path, Settings]) -> None:
    content = judge(*registered)
    assert content.champion == "naive"
    calculator = retemper.load("salt@champion", device="cpu", root=project)
    own = MACECalculator(model_paths=[str(project / "1.model")], device="cpu", default_dtype="float64")
    for atoms in water_frames(2, seed=5):
        assert abs(calculator.get_potential_energy(atoms) - own.get_potential_energy(atoms)) < 1e-6


def _move(root: str, version: str) -> None:
    os.chdir(root)
    try:
        aliases.move(Path(root), "salt", "champion", version, "override", f"to {version}", expected=None)
    except RetemperError as error:
        print(error)
        sys.exit(3)


def test_two_checkouts_promote_at_once(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two checkouts share nothing but the server."""
    other = tmp_path_factory.mktemp("other")
    (other / "params.yaml").write_text("")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_move, args=(str(r), v)) for r, v in ((project, "1"), (other, "2"))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(worker.exitcode or 0 for worker in workers) == [0, 3]
    moves, held = aliases.current(project, "salt")
    assert len(moves) == 1 and held["champion"] is not None and held["champion"].version == moves[0].version
    assert history.read(project) == moves == aliases.current(other, "salt")[0] == history.read(other)
    names = [model.name for model in connect(project).search_registered_models()]
    assert names == ["salt"]  # the lock is gone


def test_a_lock_that_a_killed_process_left(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = connect(project)
    client.create_registered_model(f"{lock.LOCK_MODEL}salt", tags={"holder": "gone", "since": f"{time.time():.0f}"})
    monkeypatch.setattr(lock, "PATIENCE", 1.0)
    with pytest.raises(RetemperError, match="held by gone"):
        aliases.move(project, "salt", "champion", "1", "override", "x")
    client.set_registered_model_tag(f"{lock.LOCK_MODEL}salt", "since", f"{time.time() - 1000:.0f}")
    assert aliases.move(project, "salt", "champion", "1", "override", "x") is not None


def test_without_the_right_password(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aliases.move(project, "salt", "champion", "1", "override", "x")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-it")
    _client.cache_clear()
    with pytest.raises(RetemperError, match="MLflow at http") as error:
        aliases.move(project, "salt", "champion", "2", "override", "y")
    assert "not-it" not in str(error.value)
    _client.cache_clear()


def test_who_may_only_read_cannot_promote(
    server: dict[str, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.server import get_app_client

    aliases.move(project, "salt", "champion", "1", "override", "x")
    password = secrets.token_urlsafe(20)
    get_app_client("basic-auth", tracking_uri=server["MLFLOW_TRACKING_URI"]).create_user("reader", password)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "reader")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    with pytest.raises(RetemperError, match="ermission|403"):
        aliases.move(project, "salt", "champion", "2", "override", "y")
    assert "salt/1" in views.models(project) and "## Measures" in views.show(project, "salt@champion")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", server["MLFLOW_TRACKING_USERNAME"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server["MLFLOW_TRACKING_PASSWORD"])
    held = aliases.current(project, "salt")[1]["champion"]
    assert held is not None and held.version == "1"


def test_no_secret_in_files_or_store(server: dict[str, str], project: Path) -> None:
    aliases.move(project, "salt", "champion", "3", "override", "x")
    secret = server["MLFLOW_TRACKING_PASSWORD"].encode()
    looked = [path for folder in (project, Path(server["folder"])) for path in folder.rglob("*") if path.is_file()]
    assert {"promotions.jsonl", "server.db", "log"} <= {path.name for path in looked}
    assert [path for path in looked if secret in path.read_bytes()] == []
