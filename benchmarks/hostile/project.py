"""A small real project for long campaigns: a clone of this repository with few frames, two strategies and two seeds.

It is driven by its commands alone, with the code of the clone. Each command runs in a session of its own under a
mark in its environment, so that whatever it starts can be found and ended afterwards.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from ase.io import read, write

ROOT = Path(__file__).resolve().parents[2]
MARK = "RETEMPER_HOSTILE_MARK"
PATIENCE = 20.0  # s that processes have to end by themselves
SETTINGS: dict[str, Any] = {
    "system": "nacl",
    "foundation": "mini",
    "strategies": ["naive", "replay"],
    "seeds": [1, 2],
    "dataset": {
        "files": ["data/raw/nacl.extxyz"],
        "level_of_theory": "GFN2-xTB",
        "keys": {"energy": "REF_energy", "forces": "REF_forces", "stress": None},
        "group": "group",
        "valid": 0.15,
        "test": 0.25,
    },
    "e0s": {"method": "reestimate"},
    "replay": {"number": 6, "valid": 3, "select": "random"},
    "finetune": {"epochs": 2, "batch_size": 4},
    "evaluate": {"max_retention": 8},
    "robustness": {"metrics": ["short_range"], "level": "quick"},
    "acquire": {
        "oracle": {"name": "xtb", "options": {"method": "GFN2-xTB"}},
        "explorers": [{"name": "rattle"}],
        "uncertainty": "llpr",
        "selector": "combined",
        "labels": 3,
        "candidates": 12,
        "trust": None,
        "verify": 1,
    },
    "promotion": {"gates": [{"metric": "target.force_rmse", "max": 10000.0}]},
}
STUDY: dict[str, Any] = {
    "about": "two runs",
    "base": {
        "dataset": {"valid": 0.15, "test": 0.25},
        "e0s": {"force": True, "max_error": 1000},
        "replay": {"number": 6, "valid": 3, "select": "random"},
        "finetune": {"epochs": 2, "batch_size": 4},
        "evaluate": {"max_retention": 8},
    },
    "centre": {"system": "few", "foundation": "mini", "strategy": "naive", "size": 8},
    "designs": {"strategies": {"axes": {"strategy": ["naive", "replay"]}}},
}


@dataclass
class Ended:
    """How a command ended: its status (negative: the signal), what it printed, and how long it took (s)."""

    command: str
    status: int
    text: str
    seconds: float
    mark: str
    killed: bool = False
    left: list[str] = field(default_factory=list)

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.text


def make(folder: Path, source: Path = ROOT) -> Path:
    """A clone of the last commit of `source` at `folder`, with the settings and the few frames above committed."""
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{source}", str(folder)], check=True)
    every = read(source / "data/raw/nacl.extxyz.xz", ":")
    frames = [atoms for atoms in every if len(atoms) == 1]
    for group in sorted({atoms.info["group"] for atoms in every if len(atoms) > 1})[:20]:
        frames += [atoms for atoms in every if atoms.info["group"] == group][::5]
    for path in (folder / "data/raw").iterdir():
        path.unlink()
    write(folder / "data/raw/nacl.extxyz", frames, format="extxyz")
    system = yaml.safe_load((folder / "systems/nacl.yaml").read_text())
    system["files"] = ["data/raw/nacl.extxyz"]
    (folder / "systems/few.yaml").write_text(yaml.safe_dump(system))
    (folder / "studies/few.yaml").write_text(yaml.safe_dump(STUDY))
    settings(folder)
    commit(folder, "A small project")
    return folder


def settings(folder: Path, **change: Any) -> None:
    """Write ``params.yaml``: the repository's own, where `SETTINGS` and `change` (by section) do not say otherwise."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    for name, value in [*SETTINGS.items(), *change.items()]:
        own = params.get(name)
        params[name] = {**own, **value} if isinstance(own, dict) and isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def commit(folder: Path, message: str) -> None:
    for arguments in (["add", "-A"], ["commit", "-q", "--allow-empty", "-m", message]):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True, env=environment(folder))


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a command in the project at `folder`: its own code, its own caches of DVC, its own committer."""
    names = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_", "RETEMPER_"))}
    return {
        **names,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{folder / 'platform'}{os.pathsep}{folder}",
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
        "DVC_SITE_CACHE_DIR": str(folder.parent / "dvc-site"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
           for what, value in (("NAME", "A. User"), ("EMAIL", "user@example.org"))},
        **more,
    }  # fmt: skip


def words(command: str) -> list[str]:
    """Of a command line as it is typed: ``python`` is this one, ``retemper`` the clone's."""
    parts = command.split()
    if parts[0] in ("python", "retemper", "dvc"):
        module = {"python": [], "retemper": ["-m", "retemper"], "dvc": ["-m", "dvc"]}[parts[0]]
        return [sys.executable, *module, *parts[1:]]
    return parts


def run(
    folder: Path,
    command: str,
    *,
    kill_after: float | None = None,
    group: bool = True,
    timeout: float = 1800.0,
    **more: str,
) -> Ended:
    """Run a command to its end, or send SIGKILL to its process group (or to itself alone) after `kill_after` s.

    Processes that it leaves behind have `PATIENCE` to end by themselves; `left` names those that do not, and they
    are ended. After a kill nobody waits: the next command meets them, as it does for a person who starts again.
    A command that overruns `timeout` (s) is ended, and counts as killed.
    """
    mark = secrets.token_hex(8)
    log = folder.parent / f"log-{mark}"
    begin = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen(
            words(command), cwd=folder, env=environment(folder, **{MARK: mark}, **more), stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        killed = False
        try:
            process.wait(timeout if kill_after is None else kill_after)
        except subprocess.TimeoutExpired:
            killed = True
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - begin
    ended = Ended(command, process.returncode, log.read_text(errors="replace"), seconds, mark, killed)
    if not killed:
        ended.left = end_all(mark)
    log.unlink()
    return ended


def marked(mark: str | None = None) -> list[psutil.Process]:
    """Live processes that a command started (the one with this `mark`, or any of this user's)."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            value = process.environ().get(MARK)
            if value is not None and mark in (None, value) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_all(mark: str) -> list[str]:
    """Wait for a command's processes; name and end those that remain."""
    end = time.monotonic() + PATIENCE
    while there := marked(mark):
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    names = []
    for process in there:
        with contextlib.suppress(psutil.Error):
            names.append(" ".join(process.cmdline())[:120])
            process.kill()
    return names


def keep(folder: Path, snapshot: Path) -> None:
    """Copy the project to `snapshot`."""
    shutil.rmtree(snapshot, ignore_errors=True)
    shutil.copytree(folder, snapshot, symlinks=True)


def restore(folder: Path, snapshot: Path) -> None:
    """Make the project what it was: in its own place, since a project that was copied elsewhere is another one."""
    shutil.rmtree(folder.parent / "dvc-site", ignore_errors=True)
    for path in folder.iterdir() if folder.exists() else ():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.copytree(snapshot, folder, symlinks=True, dirs_exist_ok=True)


def run_all(folder: Path, commands: Sequence[str]) -> None:
    """Run commands that must end well."""
    for command in commands:
        ended = run(folder, command)
        if ended.status:
            raise RuntimeError(f"{command} ended with {ended.status}:\n{ended.text[-3000:]}")
