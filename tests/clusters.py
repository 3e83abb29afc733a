"""A Ray cluster of separate processes on this machine: a head without cores and two workers of one core each."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from servers import answers, free_ports, wait_for
from sweeps import environment

STORE = "--object-store-memory=80000000"


def token(folder: Path) -> dict[str, str]:
    """Environment of a cluster with a token of its own, whatever the user's home holds."""
    path = folder / "token"
    if not path.exists():
        path.write_text(secrets.token_hex(32))
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


@contextlib.contextmanager
def cluster(folder: Path, **head: str) -> Iterator[str]:
    """Address of the dashboard. The workers' ``RETEMPER_SCRATCH`` is set: they go as if they shared no disk.

    `head` goes into the environment of the head node.
    """
    ray = str(Path(sys.executable).parent / "ray")
    port, dashboard, client, *agents = free_ports(12)
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *options: str, **more: str) -> None:
        listen, grpc, metrics = (agents.pop() for _ in range(3))
        command = [ray, "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1", STORE,
                   f"--node-name={name}", f"--temp-dir={temporary}/{name}", *options,
                   f"--dashboard-agent-listen-port={listen}", f"--dashboard-agent-grpc-port={grpc}",
                   f"--metrics-export-port={metrics}"]  # fmt: skip
        log = (folder / f"{name}.log").open("w")
        clean = {name: value for name, value in environment(**token(folder), **more).items() if name != "PYTHONPATH"}
        started.append(subprocess.Popen(command, env=clean, stdout=log, stderr=log, start_new_session=True))

    # nodes of one machine must not share the folder into which a job's code is unpacked; socket names must be short
    temporary = tempfile.mkdtemp(prefix="rt")
    try:
        start("head", "--head", "--num-cpus=0", f"--port={port}", "--dashboard-host=127.0.0.1",
              f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}", **head)  # fmt: skip
        wait_for(lambda: answers(f"http://127.0.0.1:{dashboard}/api/version"), started[0])
        for name in ("one", "two"):
            start(name, f"--address=127.0.0.1:{port}", "--num-cpus=1", RETEMPER_SCRATCH=str(folder / f"scratch-{name}"))
            wait_for(lambda: "Ray runtime started" in (folder / f"{name}.log").read_text(), started[-1])  # noqa: B023
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        family = [child for one in started for child in family_of(one.pid)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        for process in started:
            process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def family_of(pid: int) -> list[psutil.Process]:
    """A process and everything it started that still has it as an ancestor."""
    try:
        one = psutil.Process(pid)
        return [one, *one.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def submit(
    address: str, folder: Path, working_dir: Path, *command: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """``ray job submit`` as a user types it, to the cluster of `folder`; `more` goes in front of the command."""
    ray = str(Path(sys.executable).parent / "ray")
    settings = [f"{name}={value}" for name, value in more.items()]
    return subprocess.run(
        [ray, "job", "submit", "--address", address, "--working-dir", ".", "--runtime-env", "pipelines/ray-job.yaml",
         "--", "env", *settings, *command],
        cwd=working_dir, env={**os.environ, **token(folder)}, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
