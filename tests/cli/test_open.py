"""``retemper open``: addresses, a real browser command, a real MLflow server that goes when it is interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from run_files import write_project

from retemper.records.sweep import SweepStudy
from retemper.sweep import optuna_study
from retemper.tracking.store import connect, experiment_id

DATA = {"target": ["a", "b"], "replay": None, "foundation_sha256": "c"}
COMMAND = [sys.executable, "-m", "retemper", "open"]


@pytest.fixture
def root(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose store has its experiment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    write_project(tmp_path, tiny_model)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    """Without a screen unless `more` says so."""
    plain = {n: v for n, v in os.environ.items() if n not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    return {**plain, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1", **more}


def opened(root: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command in the project."""
    return subprocess.run(
        [*COMMAND, *arguments], cwd=root, env=environment(**more), capture_output=True, text=True, timeout=120
    )


def test_the_report_is_given_to_the_browser(root: Path) -> None:
    missing = opened(root, "report")
    assert missing.returncode == 1 and "report.html does not exist" in missing.stderr and "dvc repro" in missing.stderr
    page = root / "runs/report/report.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>here</p>")
    browser = root / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {root / "shown"}\n')
    browser.chmod(0o755)
    assert opened(root, "report").stdout == f"{page.as_uri()}\n"  # no screen: the address alone
    assert opened(root, "report", "--no-browser", BROWSER=str(browser)).returncode == 0
    assert not (root / "shown").exists()
    assert opened(root, "report", BROWSER=str(browser)).stdout == f"{page.as_uri()}\n"
    assert (root / "shown").read_text() == f"{page.as_uri()}\n"


@pytest.mark.parametrize(("ending", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_mlflow_runs_until_it_is_ended(root: Path, ending: signal.Signals, status: int) -> None:
    """The page of the experiment; after Ctrl-C, or a kill, nothing of the server is left."""
    number = experiment_id(connect(root), root, "test")
    command = subprocess.Popen(
        [*COMMAND, "mlflow"], cwd=root, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert command.stdout is not None
    page = next(line for line in command.stdout if line.startswith("http"))
    address = re.fullmatch(
        rf"(http://127.0.0.1:\d+)/#/experiments/{number}/runs\?workflowType=machine_learning\n", page
    )
    assert address is not None, page
    with urllib.request.urlopen(f"{address[1]}/health", timeout=30) as answer:
        assert answer.read() == b"OK"
    servers = psutil.Process(command.pid).children(recursive=True)
    assert servers
    port = address[1].rpartition(":")[2]
    taken = opened(root, "mlflow", "--port", port)
    assert taken.returncode == 1 and f"answers at port {port}" in taken.stderr
    command.send_signal(ending)
    assert command.wait(timeout=60) == status
    deadline = time.monotonic() + 20
    while any(server.is_running() and server.status() != "zombie" for server in servers):
        assert time.monotonic() < deadline, servers
        time.sleep(0.1)


def test_a_server_that_somebody_else_runs_is_shown_alone(root: Path) -> None:
    done = opened(root, "mlflow", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 1 and "127.0.0.1:9" in done.stderr and "Traceback" not in done.stderr


def test_optuna_asks_which_sweep(root: Path) -> None:
    none = opened(root, "optuna")
    assert none.returncode == 1 and "There are no sweeps" in none.stderr
    about = {"form": 1, "foundation": "tiny", "data": DATA, "retention": None, "objectives": ["target"], "epochs": 1}
    about |= {"seed": 1, "default": "d", "space": {}, "family": "f"}
    for name in ("lora", "naive"):
        folder = root / ".cache/sweep" / name
        optuna_study.open_study(folder, name, ["target"])
        SweepStudy.of({**about, "study": name, "strategy": name}, "test").write(folder / "about.json")
    several = opened(root, "optuna")
    assert several.returncode == 1 and "lora" in several.stderr and "naive" in several.stderr
    if (Path(sys.executable).parent / "optuna-dashboard").exists():
        pytest.skip("the dashboard is installed here")
    one = opened(root, "optuna", "lora", PATH="/nowhere")
    assert one.returncode == 1 and "pip install optuna-dashboard" in one.stderr
    assert f"optuna-dashboard sqlite:///{root / '.cache/sweep/lora/study.db'}" in one.stderr
