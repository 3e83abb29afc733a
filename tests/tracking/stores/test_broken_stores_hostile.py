"""Stores that are broken or locked, servers in trouble, and what is said of them: a clear word, at once."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import socket
import sqlite3
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sound_stores import start

import retemper
from retemper.cli import main
from retemper.core.errors import RetemperError
from retemper.tracking import embedded_store, runs, store_errors
from retemper.tracking.store import connect, experiment_id, metric_key
from retemper.tracking.store import store_errors as failures
from retemper.tracking.store_errors import StoreError, explain

QUICK = 15.0  # s until there is a word


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
    for place in range(8192, len(content), 4096):
        content[place : place + 64] = os.urandom(64)
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
