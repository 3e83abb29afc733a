"""Servers for tests, each a process of its own on this machine: MLflow, PostgreSQL, an S3 object store."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
BUCKET = "models"


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answers(address: str) -> bool:
    """Whether a server is there; a refusal is an answer."""
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def wait_for(what: Callable[[], bool], process: subprocess.Popen[Any], seconds: float = 180.0) -> None:
    """Until `what` holds; `process` must live that long."""
    end = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, "the process ended before that"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


@contextlib.contextmanager
def running(command: list[str], folder: Path, log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """A server until the end of the block; then it and all that it started are ended."""
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:  # MLflow's workers may wait for jobs
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def mlflow(folder: Path, *options: str, **variables: str) -> Iterator[dict[str, str]]:
    """``mlflow server`` with basic authentication; yields the variables that its administrator sets."""
    pytest.importorskip("flask_wtf")
    (port,) = free_ports(1)
    password = secrets.token_urlsafe(20)
    (folder / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder}/auth.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if name not in NAMES},
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(),
        **variables,
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", *options]
    uri = f"http://127.0.0.1:{port}"
    with running(command, folder, folder / "log", environment) as process:
        wait_for(lambda: answers(f"{uri}/health"), process)
        yield dict(zip(NAMES, (uri, "admin", password), strict=True))


@contextlib.contextmanager
def open_mlflow(folder: Path, *options: str) -> Iterator[dict[str, str]]:
    """``mlflow server`` without passwords, which answers faster; yields the variables of its clients."""
    (port,) = free_ports(1)
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
    uri = f"http://127.0.0.1:{port}"
    with running([*command, *options], folder, folder / "log", environment) as process:
        wait_for(lambda: answers(f"{uri}/health"), process)
        yield {NAMES[0]: uri}


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server with an empty database; yields its address for SQLAlchemy."""
    pytest.importorskip("psycopg")
    places = [*Path("/usr/lib/postgresql").glob("*/bin"), Path(shutil.which("initdb") or "/none").parent]
    programs = next((place for place in places if (place / "initdb").exists()), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as name:
        folder, user = Path(name), []
        if os.getuid() == 0:  # it refuses to run as root
            shutil.chown(folder, "postgres")
            user = ["runuser", "-u", "postgres", "--"]
        create = [*user, str(programs / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "--auth=trust"]
        subprocess.run(create, check=True, capture_output=True, cwd=folder)
        command = [*user, str(programs / "postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1", "-k", ""]
        with running([*command, "-p", str(port)], folder, folder / "log", dict(os.environ)) as process:
            ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
            wait_for(lambda: subprocess.run(ready, capture_output=True).returncode == 0, process)
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[dict[str, str]]:
    """An S3 server over ``folder/objects`` with the bucket `BUCKET`; yields the variables of its clients."""
    pytest.importorskip("boto3")
    program = shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        pytest.skip("rclone is not installed")
    (folder / "objects" / BUCKET).mkdir(parents=True)
    (port,) = free_ports(1)
    key, secret = secrets.token_hex(10), secrets.token_hex(20)
    command = [program, "serve", "s3", str(folder / "objects"), "--addr", f"127.0.0.1:{port}"]
    environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{key},{secret}"', "RCLONE_CONFIG": str(folder / "rclone.conf")}
    with running(command, folder, folder / "log", environment) as process:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}"), process)
        yield {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
