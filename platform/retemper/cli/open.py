"""``retemper open``: the report, MLflow's pages and Optuna's dashboard, in the browser. Imports nothing heavy."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from retemper.core.errors import RetemperError, unknown
from retemper.core.files import project_root

SECONDS = 120  # in which a server has to answer
TRAINING = "workflowType=machine_learning"  # of MLflow's two views the one of runs and models


def _open(options: argparse.Namespace) -> None:
    {"report": _report, "mlflow": _mlflow, "optuna": _optuna}[options.what](project_root(), options)


def _report(root: Path, options: argparse.Namespace) -> None:
    page = root / "runs" / "report" / "report.html"
    if not page.is_file():
        raise RetemperError(f"{page} does not exist.", fix="dvc repro")
    _show(page.as_uri(), options)


def _mlflow(root: Path, options: argparse.Namespace) -> None:
    from retemper.config.settings import load_settings
    from retemper.tracking.store import connect, store_errors, tracking_uri

    name = load_settings(root / "params.yaml").tracking.experiment
    with store_errors(root):
        experiment = connect(root).get_experiment_by_name(name)  # after a move it puts the places of files right
    place = f"experiments/{experiment.experiment_id}/runs" if experiment else "experiments"
    uri = tracking_uri(root)
    if uri.startswith("http"):
        _show(f"{uri.rstrip('/')}/#/{place}?{TRAINING}", options)
        return
    port = options.port or _free_port()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    _serve(command, port, f"/#/{place}?{TRAINING}", options)


def _optuna(root: Path, options: argparse.Namespace) -> None:
    from retemper.config.project import Project
    from retemper.sweep import status

    databases = status.databases(Project.here(root), options.strategy)
    if not databases:
        raise RetemperError("There are no sweeps.", fix="set sweep.trials in params.yaml, then dvc repro")
    names = [name for name, _ in databases]
    if len(databases) > 1:
        raise unknown("sweep of `retemper open optuna STRATEGY`", str(options.strategy or ""), names)
    address = databases[0][1]
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("optuna-dashboard", path=beside)
    if program is None:
        raise RetemperError(
            "Optuna's dashboard is not installed.", fix=f"pip install optuna-dashboard, then optuna-dashboard {address}"
        )
    port = options.port or _free_port()
    _serve([program, address, "--port", str(port)], port, "/dashboard", options)


# ------------------------------------------------------------------ servers and browsers


def _serve(command: Sequence[str], port: int, page: str, options: argparse.Namespace) -> None:
    """Run a server until it ends or is interrupted; its page is shown as soon as it answers."""
    address = f"http://127.0.0.1:{port}"
    _require_free(port)
    for ending in (signal.SIGTERM, signal.SIGHUP):  # the server has a session of its own and would stay
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    print(f"{' '.join(command)}\nCtrl-C ends it.", flush=True)
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        _wait_for(address, server)
        _show(address + page, options)
        code = server.wait()
    finally:  # its workers too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
    if code:
        sys.exit(code)


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RetemperError(f"The server ended with status {server.returncode}.", fix="its lines above say why")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:  # it answers
            return
        except OSError:
            time.sleep(0.3)
    raise RetemperError(f"{address} does not answer within {SECONDS} s.", fix="try again, or another --port")


def _show(address: str, options: argparse.Namespace) -> None:
    """Print an address, and open it where there is a browser with a screen; one in the terminal would hide it."""
    print(address, flush=True)
    screen = sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    if screen and not options.no_browser:
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(address)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise RetemperError(
                f"Something else answers at port {port}.", fix="another --port, or none: a free one is taken"
            )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("what", choices=("report", "mlflow", "optuna"), help="the comparison, runs and models, or sweeps")
    add("strategy", nargs="?", help="of optuna: whose sweep, where there are several")
    add("--port", type=int, help="of the server; default: a free one")
    add("--no-browser", action="store_true", help="print the address alone")


Command = tuple[Callable[[argparse.Namespace], None], Callable[[argparse.ArgumentParser], None], str]
COMMANDS: dict[str, Command] = {
    "open": (_open, _arguments, "open the report, MLflow or Optuna's dashboard in the browser"),
}
