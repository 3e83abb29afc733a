"""Stores that are broken, locked, moved, unreachable or another's: a clear word, no waiting, nothing lost."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_files import write_project

import retemper
from retemper.cli import main
from retemper.core.errors import RetemperError
from retemper.tracking import embedded_store, runs, store_errors
from retemper.tracking.store import connect, default_store, experiment_id, metric_key
from retemper.tracking.store import store_errors as failures
from retemper.tracking.store_errors import StoreError, explain

QUICK = 15.0  # s until there is a word


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a store: a run with a file, and version 1 of ``salt`` with its files."""
    root = tmp_path_factory.mktemp("sound") / "project"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (root.parent / "any.model").write_bytes(b"weights")
        write_project(root, root.parent / "any.model")
        client: Any = connect(root)
        experiment = experiment_id(client, root, "test")
        run = client.create_run(experiment)
        (root / "note.txt").write_text("of the original")
        client.log_artifact(run.info.run_id, str(root / "note.txt"))
        logged = client.create_logged_model(experiment, "m", run.info.run_id)
        client.log_model_artifacts(logged.model_id, str(root / "foundations"))
        client.finalize_logged_model(logged.model_id, "READY")
        client.create_registered_model("salt")
        with default_store(root):
            client.create_model_version("salt", f"models:/{logged.model_id}", run.info.run_id, model_id=logged.model_id)
    return root


@pytest.fixture
def project(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, at home."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "project"
    shutil.copytree(sound, root)
    embedded_store.ready(root)
    monkeypatch.chdir(root)
    return root


def start(root: Path, key: str = "k") -> str | None:
    """A training that begins."""
    return runs.start_training(
        {"lr": 0.1}, experiment="test", system="salt", strategy="naive", seed=1, root=root, key=key
    )


# ------------------------------------------------------------------ broken databases


def _other(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE trials (number INTEGER)")


def _version(number: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("UPDATE alembic_version SET version_num = ?", (number,))
            database.commit()

    return change


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for start in range(8192, len(content), 4096):
        content[start : start + 64] = os.urandom(64)
    path.write_bytes(content)


def _instead(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


# a version of MLflow's tables from 2019
OLDER = "451aebb31d03"  # pragma: allowlist secret
BROKEN: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "empty": (lambda p: p.write_bytes(b""), "an empty file", "retemper sync"),
    "text": (lambda p: p.write_text("metrics: 3\n" * 99), "is not a database", "retemper sync"),
    "half written": (lambda p: os.truncate(p, p.stat().st_size // 2), "is broken|malformed", "retemper sync"),
    "header alone": (lambda p: os.truncate(p, 512), "is broken|malformed|not MLflow|not a database", "retemper sync"),
    "flipped bits": (_flip, "is broken|malformed", "retemper sync"),
    "a folder": (_instead(Path.mkdir), "is a folder", "move it away"),
    "a pipe": (_instead(os.mkfifo), "is no file", "move it away"),
    "a link to nowhere": (_instead(lambda p: p.symlink_to("gone.db")), "a link to nowhere", "move it away"),
    "another program's": (_other, "is not MLflow's database", "retemper sync"),
    "of a newer MLflow": (_version("ffffffffffff"), "made by a newer MLflow", "pip install --upgrade mlflow"),
    "of an older MLflow": (_version(OLDER), "made by an older MLflow", "mlflow db upgrade"),
}


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_store_is_named_at_once(project: Path, kind: str) -> None:
    spoil, what, fix = BROKEN[kind]
    spoil(project / "mlflow.db")
    begin = time.monotonic()
    with pytest.raises(StoreError, match=what) as error, failures(project):
        connect(project)
    assert time.monotonic() - begin < QUICK
    assert fix in str(error.value) and "start the server" not in str(error.value)


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("kind", BROKEN)
def test_training_goes_on_without_a_sound_store(project: Path, kind: str) -> None:
    """A warning before the first epoch, and the record when the store is back."""
    kept = (project / "mlflow.db").read_bytes()
    spoil, what, _ = BROKEN[kind]
    spoil(project / "mlflow.db")
    begin = time.monotonic()
    with pytest.warns(RuntimeWarning, match=rf"Training goes on[\s\S]*({what})"):
        assert start(project) is None
    assert time.monotonic() - begin < QUICK
    path = project / "mlflow.db"
    path.rmdir() if path.is_dir() else path.unlink()
    path.write_bytes(kept)
    assert start(project) is not None


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("training", [False, True])
def test_a_locked_store(project: Path, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_store, "PATIENCE", 0.5)
    embedded_store._check_pages.cache_clear()
    with contextlib.closing(sqlite3.connect(project / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        begin = time.monotonic()
        if training:
            with pytest.warns(RuntimeWarning, match=r"Training goes on[\s\S]*database is locked"):
                assert start(project) is None
        else:
            with pytest.raises(StoreError, match="end what holds mlflow.db"), failures(project):
                connect(project)
        assert time.monotonic() - begin < QUICK
        other.execute("ROLLBACK")
    assert start(project) is not None


@contextlib.contextmanager
def as_nobody(*folders: Path) -> Iterator[None]:
    """Without the rights of root, where the tests have them."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_to_all(project: Path) -> Iterator[Path]:
    """The project in a folder into which everybody may look."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = Path(folder) / "project"
        shutil.copytree(project, root)
        embedded_store.ready(root)
        yield root


@pytest.mark.hostile("registry")
def test_a_store_that_may_not_be_read(open_to_all: Path) -> None:
    (open_to_all / "mlflow.db").chmod(0o600 if os.geteuid() == 0 else 0)
    with as_nobody(), pytest.raises(StoreError, match="chown or chmod"), failures(open_to_all):
        connect(open_to_all)


@pytest.mark.hostile("registry")
def test_a_store_that_may_only_be_read(open_to_all: Path) -> None:
    """It answers questions; what would be written is a warning in training."""
    for path in (open_to_all / "mlflow.db", open_to_all):
        path.chmod(path.stat().st_mode & ~0o222)
    with as_nobody():
        assert len(connect(open_to_all).search_model_versions("name = 'salt'")) == 1
        with pytest.warns(RuntimeWarning, match=r"Training goes on[\s\S]*readonly"):
            assert start(open_to_all) is None


@pytest.mark.hostile("registry")
def test_a_moved_store_that_may_only_be_read(open_to_all: Path) -> None:
    moved = open_to_all.with_name("moved")
    open_to_all.rename(moved)
    for path in (moved / "mlflow.db", moved):
        path.chmod(path.stat().st_mode & ~0o222)
    with as_nobody(), pytest.raises(StoreError, match="chown or chmod"), failures(moved):
        connect(moved)


# ------------------------------------------------------------------ copied and moved projects


def places(root: Path) -> set[str]:
    """Folders that the store names in its four columns, up to ``mlartifacts``."""
    found = set()
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        for table, column in embedded_store.PLACES:
            for (place,) in database.execute(f"SELECT {column} FROM {table} WHERE {column} LIKE 'file:%'"):
                found.add(re.sub(r"(.*/mlartifacts)(/.*)?", r"\1", place))
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def works_at(root: Path) -> None:
    """What is written lands here, and what was there is read from here."""
    client: Any = connect(root)
    assert places(root) == {(root.resolve() / "mlartifacts").as_uri()}
    run_id = start(root, key=str(time.time()))
    assert run_id is not None
    (root / "new.txt").write_text("new")
    client.log_artifact(run_id, str(root / "new.txt"))
    assert (root / f"mlartifacts/{run_id}/artifacts/new.txt").is_file()
    version = client.get_model_version("salt", "1")
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as folder:
        got = download_artifacts(artifact_uri=f"{logged.artifact_location}/tiny.model", dst_path=folder)
        assert Path(got).read_bytes() == (root / "foundations/tiny.model").read_bytes()


NAMES = ("copy", "a b", "50%20", "what?", "#1", "é", "it's", "mlartifacts", "project/mlartifacts/inside", "x" * 200)


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_beside_its_original(project: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The original is as it was, to the byte, and both work."""
    copy = project.with_name("copies") / name
    shutil.copytree(project, copy)
    before = content(project)
    works_at(copy)
    assert content(project) == before
    assert f"copied or moved here from {project}" in capsys.readouterr().err
    works_at(project)
    assert capsys.readouterr().err == ""  # it was always here


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("steps", [("b",), ("b", "c"), ("b", "project"), ("deep/er/b", "c")])
def test_a_moved_project(project: Path, steps: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved, moved again, and back: nothing is left where it was."""
    monkeypatch.chdir("/")
    for step in steps:
        to = project.parent / step
        to.parent.mkdir(parents=True, exist_ok=True)
        here = next(path.parent for path in project.parent.rglob("mlflow.db"))
        here.rename(to)
        works_at(to)
        assert not here.exists()


@pytest.mark.hostile("registry")
def test_a_parent_that_is_renamed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    parent = project.parent / "group"
    parent.mkdir()
    project.rename(parent / "project")
    works_at(parent / "project")
    parent.rename(project.parent / "team")
    works_at(project.parent / "team/project")
    assert not parent.exists()


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("link", ["root", "parent", "artifacts"])
def test_links(project: Path, link: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A project by another name is where it was; artifacts may lie on another disk."""
    root, other = project, project.with_name("other")
    if link == "root":
        other.symlink_to(project)
        root = other
    elif link == "parent":
        other.symlink_to(project.parent)
        root = other / "project"
    else:
        (project / "mlartifacts").rename(other)
        (project / "mlartifacts").symlink_to(other)
    works_at(root)
    works_at(project)
    assert capsys.readouterr().err == ""


@pytest.mark.hostile("registry")
def test_two_mounts_of_one_project(project: Path, tmp_path: Path) -> None:
    """One folder under two paths, as in a container or on two machines, in turn."""
    mount = tmp_path / "work"
    mount.mkdir()
    if subprocess.run(["mount", "--bind", str(project), str(mount)], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        for root in (mount, project, mount):
            works_at(root)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


@pytest.mark.hostile("registry")
def test_moved_while_it_trains(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a training goes to where the project is by then."""
    run_id = start(project)
    assert run_id is not None
    runs.log_epoch(run_id, 0, {"train_loss": 1.0})
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    runs._live.clear()
    monkeypatch.chdir(copy)
    (copy / "seed").mkdir()
    (copy / "seed/history.csv").write_text("epoch,train_loss,seconds\n0,1.0,2.0\n1,0.5,2.0\n")
    before = content(project)
    runs.finish_training(run_id, copy / "seed", "FINISHED")
    assert content(project) == before
    assert (copy / f"mlartifacts/{run_id}/artifacts/history.csv").is_file()


@pytest.mark.hostile("registry")
def test_a_copy_killed_while_it_comes_home(project: Path) -> None:
    """All places or none: what a kill left open is done by the next command."""
    copy = project.with_name("copy")
    shutil.copytree(project, copy)
    here = (copy / "mlartifacts").as_uri()
    with contextlib.closing(sqlite3.connect(copy / "mlflow.db", isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        embedded_store._replace(database, (project / "mlartifacts").as_uri(), here)
        # killed: no COMMIT
    assert places(copy) == {(project / "mlartifacts").as_uri()}
    works_at(copy)


@pytest.mark.hostile("registry")
def test_the_store_without_its_artifacts(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sync` does not say that all is well."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy = tmp_path / "copy"
    shutil.copytree(registered, copy, ignore=shutil.ignore_patterns("mlartifacts"))
    monkeypatch.chdir(copy)
    with pytest.raises(SystemExit):
        main.main(["sync"])
    with pytest.raises(RetemperError, match="bring mlartifacts/"):
        retemper.load("salt/1", root=copy, device="cpu")


@pytest.mark.hostile("registry")
def test_the_commands_in_a_moved_project(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """models, show, load, sync and export of a copy, whose original is gone meanwhile."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    first, moved = tmp_path / "first", tmp_path / "moved"
    shutil.copytree(registered, first)
    connect(first)
    first.rename(moved)
    monkeypatch.chdir(moved)
    for command in (["models"], ["show", "salt/1"], ["sync"], ["export", "salt/1", "--to", "model", "--out", "out"]):
        main.main(command)
    assert "4 versions of salt are in MLflow" in capsys.readouterr().out
    retemper.load("salt/1", root=moved, device="cpu")
    assert not first.exists()


# ------------------------------------------------------------------ servers


class _Answers(http.server.BaseHTTPRequestHandler):
    """A server that is none of MLflow's, or one in trouble."""

    status, body, wait = 200, b"{}", 0.0

    def do_GET(self) -> None:
        time.sleep(self.wait)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(self.status)
            self.send_header("Content-Length", str(len(self.body)))
            self.end_headers()
            self.wfile.write(self.body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@contextlib.contextmanager
def answering(status: int, body: bytes, wait: float = 0.0) -> Iterator[str]:
    handler = type("Handler", (_Answers,), {"status": status, "body": body, "wait": wait})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and never answers."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield f"http://127.0.0.1:{one.getsockname()[1]}"


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    yield address


SERVERS: dict[str, tuple[Callable[[], Any], str]] = {
    "nobody there": (nobody, "start the server"),
    "never answers": (silent, "start the server"),
    "slow": (lambda: answering(200, b"{}", 60), "start the server"),
    "who are you": (lambda: answering(401, b"who are you?"), "MLFLOW_TRACKING_USERNAME"),
    "not allowed": (lambda: answering(403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}'), "ask who runs"),
    "another server": (lambda: answering(404, b"<html>no such page</html>"), "mend MLFLOW_TRACKING_URI"),
    "a login page": (lambda: answering(200, b"<html>please log in</html>"), "mend MLFLOW_TRACKING_URI"),
    "broken": (lambda: answering(500, b'{"error_code": "INTERNAL_ERROR", "message": "database"}'), "server's log"),
    "overloaded": (lambda: answering(503, b"try later"), "server's log"),
    "no such host": (lambda: contextlib.nullcontext("http://no-such-host.invalid:5000"), "start the server"),
}


@pytest.mark.hostile("registry")
@pytest.mark.parametrize("kind", SERVERS)
def test_servers_in_trouble(project: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end quickly with true advice, and training goes on."""
    make, advice = SERVERS[kind]
    if make is silent or kind == "slow":
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # of the six seconds
    with make() as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        begin = time.monotonic()
        with pytest.raises(StoreError) as error, failures(project):
            connect(project)
        assert time.monotonic() - begin < QUICK
        assert advice in str(error.value), str(error.value)
        begin = time.monotonic()
        with pytest.warns(RuntimeWarning, match="Training goes on"):
            assert start(project) is None
        assert time.monotonic() - begin < QUICK


@pytest.mark.slow
@pytest.mark.hostile("registry")
def test_patience_with_a_server_that_never_answers(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        begin = time.monotonic()
        with pytest.raises(StoreError, match="start the server"), failures(project):
            connect(project)
        assert time.monotonic() - begin < QUICK


# ------------------------------------------------------------------ true advice


@pytest.mark.hostile("messages")
@pytest.mark.parametrize("name", ["a//b", "../up", ".", "a#b", "tab\there", "C:\\x", "x" * 400, "/top", "end/", "é ü"])
def test_names_of_kinds_that_mlflow_refuses(project: Path, name: str) -> None:
    """A ``config_type`` is the user's: it becomes a key, and no two become one."""
    keys = [metric_key(f"target.force_rmse.{each}") for each in (name, name.replace("/", "_") + "_")]
    assert len(set(keys)) == 2
    client: Any = connect(project)
    run = client.create_run(experiment_id(client, project, "test"))
    for key in keys:
        client.log_metric(run.info.run_id, key, 1.0)
    assert set(client.get_run(run.info.run_id).data.metrics) == set(keys)


@pytest.mark.hostile("messages")
@pytest.mark.parametrize("command", ["show", "export", "load"])
def test_a_version_made_by_hand(project: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    client: Any = connect(project)
    client.create_registered_model("mine")
    client.create_model_version("mine", (project / "foundations").as_uri(), tags={"seed": "first", "sha256": "0" * 64})
    if command == "load":
        with pytest.raises(RetemperError) as error:
            retemper.load("mine/1", root=project)
        said = str(error.value)
    else:
        with contextlib.suppress(SystemExit):
            main.main([command, "mine/1", *(["--to", "model", "--out", "out"] if command == "export" else [])])
        said = "".join(capsys.readouterr())
    assert "start the server" not in said and "Traceback" not in said
    if command != "show":
        assert "mine/1 was not registered by retemper" in said


SQLITE, HTTP = "sqlite:////p/mlflow.db", "http://server:5000"
SAID = [
    ("(sqlite3.OperationalError) database is locked", SQLITE, "end what holds"),
    ("(sqlite3.OperationalError) attempt to write a readonly database", SQLITE, "chown or chmod"),
    ("(sqlite3.DatabaseError) database disk image is malformed", SQLITE, "retemper sync"),
    ("(sqlite3.OperationalError) database or disk is full", SQLITE, "free space"),
    ("INVALID_PARAMETER_VALUE: Invalid value \"a//b\" for parameter 'name'", SQLITE, "params.yaml or in the data"),
    ("INVALID_PARAMETER_VALUE: Invalid value \"a//b\" for parameter 'name'", HTTP, "params.yaml or in the data"),
    ("The experiment 3 must be in the 'active' state. Current state is deleted.", SQLITE, "mlflow experiments restore"),
    ("Run with id=3f not found", HTTP, "retemper sync"),
    ("[Errno 2] No such file or directory: '/old/mlartifacts/models/m-1'", SQLITE, "bring mlartifacts/"),
    ("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.name", SQLITE, "run it again"),
    ("API request to endpoint /x failed with error code 401 != 200.", HTTP, "MLFLOW_TRACKING_PASSWORD"),
    ("PERMISSION_DENIED: Permission denied", HTTP, "ask who runs the server"),
    ("HTTPConnectionPool(host='server', port=5000): Max retries exceeded with url", HTTP, "start the server"),
    ("something that nobody has seen before", HTTP, "see what MLflow says"),
]


@pytest.mark.hostile("messages")
@pytest.mark.parametrize(("text", "uri", "advice"), SAID)
def test_advice(text: str, uri: str, advice: str) -> None:
    said = str(explain(Exception(text), uri))
    assert advice in said
    assert ("start the server" in said) == (advice == "start the server")


def test_an_experiment_that_was_deleted(project: Path) -> None:
    """Deleted in MLflow: said so, with the way back; training goes on."""
    client: Any = connect(project)
    client.delete_experiment(experiment_id(client, project, "test"))
    with pytest.warns(RuntimeWarning, match="mlflow experiments restore"):
        assert start(project) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs.log_epoch(None, 0, {"train_loss": 1.0})


def test_the_words_of_errors_name_the_files() -> None:
    assert store_errors.DATABASE == "mlflow.db" and store_errors.ARTIFACTS == "mlartifacts"
