"""Trained projects and their runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from run_files import write_evaluation, write_preparation, write_project, write_training

from retemper.config.settings import Settings
from retemper.tracking import runs
from retemper.tracking.store import connect

SETTINGS = {"training": {"lr": 0.001}}


def write_trained(root: Path, model: Path, seeds: tuple[int, ...] = (1,)) -> Settings:
    root.mkdir()
    settings = write_project(root, model, ["naive"], list(seeds))
    write_preparation(root)
    write_training(root, "naive", dict.fromkeys(seeds, model))
    write_evaluation(root, "foundation", {0: 90.0}, {0: 50.0}, 50.0)
    write_evaluation(root, "naive", {s: 30.0 + s for s in seeds}, dict.fromkeys(seeds, 100.0), 50.0)
    return settings


def start(root: Path, key: str = "key-naive-1") -> str:
    """A training that begins, in a process that knows of no other."""
    runs._live.clear()
    run_id = runs.start_training(
        SETTINGS, experiment="test", system="salt", strategy="naive", seed=1, root=root, key=key
    )
    assert run_id is not None
    return run_id


def all_runs(root: Path, experiment: str = "test") -> dict[str, Any]:
    client: Any = connect(root)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {run.info.run_id: run for run in found}
