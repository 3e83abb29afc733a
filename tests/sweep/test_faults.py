"""Sweeps that are killed go on as the same sweep; what fails is recorded as failed."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from servers import wait_for
from sweeps import change, change_strategy, command, environment, make_project, stage

from retemper.core.files import read_json
from retemper.records.runs import read_history
from retemper.sweep import optuna_study as studies
from retemper.sweep.choice import Trial

DIVERGES = 1e30  # learning rate at which the first steps overflow


def study_folder(root: Path) -> Path:
    (about,) = root.glob(".cache/sweep/*/about.json")
    return about.parent


def trials(root: Path) -> list[Trial]:
    """The study as far as it is written; empty before the first trial."""
    found = list(root.glob(".cache/sweep/*/about.json"))
    return studies.read(found[0].parent) if found else []


def start(root: Path) -> subprocess.Popen[str]:
    log = (root / "sweep.log").open("a")
    return subprocess.Popen(command("sweep", "naive"), cwd=root, env=environment(), stdout=log, stderr=log, text=True)


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 of the driver: Ray and the trials must end by themselves (two idle agents of Ray take minutes)."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 60
    while left := [one for one in family if lives(one)]:
        assert time.monotonic() < end, left
        time.sleep(0.5)


def lives(one: psutil.Process) -> bool:
    """Whether a process still does anything; an agent takes its name only some time after it has started."""
    try:
        return one.status() != psutil.STATUS_ZOMBIE and not one.name().endswith("Agent")
    except psutil.NoSuchProcess:
        return False


def workers(family: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that train."""
    return [one for one in family if "ImplicitFunc" in " ".join(one.cmdline())]


def epochs_done(root: Path, one: Trial) -> int:
    path = root / ".cache/training" / one.training / "history.csv"
    return len(read_history(path)) if one.training and path.is_file() else 0


@pytest.mark.slow
def test_killed_driver_and_worker(files: dict[str, Any], tmp_path: Path) -> None:
    """kill -9 of the driver, then of a worker: nothing finished is repeated, broken trials go on, NaN is a failure."""
    root = make_project(tmp_path / "project", files, trials=4, prune=False, epochs=8)
    search = {"training.lr": {"choices": [1e-3, DIVERGES, 2e-3]}, "training.ema_decay": {"choices": [0.99, 0.999]}}
    change_strategy(root, "naive", search)
    first = start(root)
    wait_for(lambda: any(one.state == "running" and 2 <= epochs_done(root, one) < 7 for one in trials(root)), first)
    assert workers(psutil.Process(first.pid).children(recursive=True))
    kill(first)
    broken = [one for one in trials(root) if one.state == "running"]
    finished = {one.training: (root / f".cache/training/{one.training}/summary.json").stat().st_mtime_ns
                for one in trials(root) if one.state == "complete"}  # fmt: skip
    assert broken

    before = {one.training: epochs_done(root, one) for one in broken}
    second = start(root)
    wait_for(
        lambda: any(
            one.state == "running" and before.get(one.training, 0) < epochs_done(root, one) < 8 for one in trials(root)
        ),
        second,
    )
    workers(psutil.Process(second.pid).children(recursive=True))[0].send_signal(signal.SIGKILL)
    assert second.wait(timeout=300) == 0, (root / "sweep.log").read_text()

    ended = [one for one in trials(root) if one.state in ("complete", "pruned", "failed")]
    assert len(ended) == 4
    for one in ended:
        if one.params["training.lr"] == DIVERGES:
            assert one.state == "failed" and "diverged" in one.reason
        else:
            assert one.state == "complete" and one.epochs == 8 and epochs_done(root, one) == 8
    for training, written in finished.items():
        assert (root / f".cache/training/{training}/summary.json").stat().st_mtime_ns == written
    went_on = [read_json(root / f".cache/training/{one.training}/summary.json")["started_from"] for one in ended
               if one.training in {b.training for b in broken} and one.state == "complete"]  # fmt: skip
    assert any(epoch > 0 for epoch in went_on)
    assert "nothing to search" in stage(root, "sweep", "naive")
    assert len(trials(root)) == len(ended)
    best = yaml.safe_load((root / "runs/sweep/naive/best.yaml").read_text())
    assert best["chosen"]["of"] == 4 and best["settings"]["training.lr"] != DIVERGES


@pytest.mark.slow
def test_killed_three_times_at_random(files: dict[str, Any], tmp_path: Path) -> None:
    """A sweep killed three times at random ends with as many finished trials as one left alone."""
    rng = random.Random(0)
    root = make_project(tmp_path / "killed", files, trials=8, prune=False, epochs=4)
    for _ in range(3):
        process = start(root)
        wait_for(lambda: any(one.state == "running" for one in trials(root)), process)
        time.sleep(rng.uniform(0.5, 8.0))
        if process.poll() is None:
            kill(process)
    stage(root, "sweep", "naive")
    alone = make_project(tmp_path / "alone", files, trials=8, prune=False, epochs=4)
    stage(alone, "sweep", "naive")

    def states(folder: Path) -> list[str]:
        return sorted(one.state for one in trials(folder) if one.state != "waiting")

    assert states(root) == states(alone) == ["complete"] * 8
    keys = [one.training for one in trials(root)]
    assert len(set(keys)) == len(keys)


@pytest.mark.slow
def test_two_sweeps_of_one_study_exclude_each_other(files: dict[str, Any], tmp_path: Path) -> None:
    root = make_project(tmp_path / "project", files, trials=2, prune=False, objectives=["target"])
    change(root, scope="single-system")
    one, two = start(root), None
    wait_for(lambda: bool(trials(root)), one)
    two = subprocess.run(command("sweep", "naive"), cwd=root, env=environment(), capture_output=True, text=True)
    assert two.returncode == 1 and "runs already" in two.stderr
    assert one.wait(timeout=300) == 0, (root / "sweep.log").read_text()
