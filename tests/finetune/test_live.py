"""Trainings while they run, as DVC and editors read them."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from conftest import ROOT

from retemper.config.project import Project
from retemper.config.settings import load_settings
from retemper.finetune import live

FIRST = "epoch,valid.force_rmse,valid_replay.force_rmse\n0,210.5,130.0\n1,180.25,131.5\n"
SECOND = "epoch,valid.force_rmse,valid_replay.force_rmse\n0,220.0,129.0\n"


def _project(folder: Path) -> Project:
    shutil.copy(ROOT / "params.yaml", folder)
    return Project(folder, load_settings(folder / "params.yaml"))


def _histories(folder: Path, **texts: str) -> dict[int, Path]:
    folders = {}
    for number, (name, text) in enumerate(texts.items(), 1):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "history.csv").write_text(text)
        folders[number] = folder / name
    return folders


def test_every_epoch_of_every_seed(tmp_path: Path) -> None:
    project = _project(tmp_path)
    folders = _histories(tmp_path / "kept", first=FIRST, second=SECOND) | {3: tmp_path / "kept/not-begun"}
    live.write(project, "replay", folders)
    with (tmp_path / "runs/live/replay.csv").open(newline="") as file:
        rows = [(row["seed"], row["epoch"], row["valid.force_rmse"]) for row in csv.DictReader(file)]
    assert rows == [("1", "0", "210.5"), ("1", "1", "180.25"), ("2", "0", "220.0")]


def test_dvc_shows_them(tmp_path: Path) -> None:
    """`dvc plots show` by the lines of the project's own dvc.yaml, at the first epoch and before it."""
    project = _project(tmp_path)
    whole = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    of_replay = [{"runs/live/replay.csv": plot[name]} for plot in whole["stages"]["finetune"]["plots"] for name in plot]
    stage = {"cmd": "true", "plots": of_replay}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"finetune": stage}}))
    (tmp_path / ".gitignore").write_text("/runs/\n")

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    dvc = (sys.executable, "-m", "dvc")
    run("git", "init", "-q")
    run(*dvc, "init", "-q")
    shutil.copytree(ROOT / ".dvc/plots", tmp_path / ".dvc/plots")
    live.write(project, "replay", {1: tmp_path / "not-begun"})
    run(*dvc, "plots", "show", "--json")
    live.write(project, "replay", _histories(tmp_path / "kept", first=FIRST, second=SECOND))
    plots = json.loads(run(*dvc, "plots", "show", "--json"))
    assert "180.25" in json.dumps(plots["data"]["runs/live/replay.csv"])
