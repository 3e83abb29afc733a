"""A project with registered models that promotion is tried on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import build_tiny
from run_files import write_evaluation, write_preparation, write_project, write_training

from retemper.config.project import Project
from retemper.config.settings import Settings, load_settings
from retemper.promotion import promote
from retemper.records.verdict import Verdict
from retemper.registry import register
from retemper.tracking.store import connect

GATES = [
    {"metric": "target.force_rmse", "max": 60.0},
    {"metric": "target.force_rmse", "relative_to": "foundation"},
    {"metric": "target.force_rmse", "relative_to": "champion"},
    {"metric": "retention.force_rmse", "relative_to": "champion", "margin": 0.1},
]


def set_gates(root: Path, gates: list[dict[str, Any]], **more: Any) -> Settings:
    """Write ``promotion`` into ``params.yaml``."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["promotion"] = {"gates": gates, **more}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return load_settings(root / "params.yaml")


def judge(root: Path, settings: Settings) -> Verdict:
    """The stage promote."""
    verdict = promote.run(Project(root, settings))
    assert verdict is not None
    return verdict


def standing(root: Path) -> dict[str, str | None]:
    """Versions that the aliases point to."""
    found = dict(connect(root).get_registered_model("salt").aliases)
    return {alias: str(found[alias]) if alias in found else None for alias in ("champion", "challenger")}


def build(folder: Path, tiny_model: Path) -> Path:
    """A project with naive (versions 1, 2) and replay (3, 4) registered, and nothing promoted."""
    root = folder / "project"
    root.mkdir()
    settings = write_project(root, tiny_model, ["naive", "replay"], [1, 2])
    models = {k: build_tiny(folder / f"{k}.model", ["pt_head", "Default"], seed=k) for k in (3, 4)}
    write_preparation(root)
    write_training(root, "naive", {1: tiny_model, 2: build_tiny(folder / "2.model", ["Default"], seed=2)})
    write_training(root, "replay", models, replay="original")
    write_evaluation(root, "foundation", {0: 90.0}, {0: 50.0}, 50.0)
    write_evaluation(root, "naive", {1: 30.0, 2: 30.3}, {1: 100.0, 2: 101.0}, 50.0)
    write_evaluation(root, "replay", {3: 40.0, 4: 40.4}, {3: 60.0, 4: 61.0}, 50.0, replay_head={3: 55.0, 4: 56.0})
    for name in ("naive", "replay"):
        register.run(Project(root, settings), name)
    return root


@contextmanager
def taken_back(root: Path, keep: Path) -> Iterator[None]:
    """What is promoted and changed in the block is taken back after it; `keep` holds copies meanwhile."""
    names = ("runs", "params.yaml")
    for name in names:
        (shutil.copytree if (root / name).is_dir() else shutil.copy)(root / name, keep / name)
    yield
    shutil.rmtree(root / "runs")
    for name in names:
        (shutil.copytree if (keep / name).is_dir() else shutil.copy)(keep / name, root / name)
    (root / "promotions.jsonl").unlink(missing_ok=True)
    client: Any = connect(root)
    registered = client.get_registered_model("salt")
    for alias in dict(registered.aliases):
        if alias != "candidate":
            client.delete_registered_model_alias("salt", alias)
    for tag in registered.tags:
        client.delete_registered_model_tag("salt", tag)
    for version in client.search_model_versions("name = 'salt'"):
        for tag in version.tags:
            if tag.startswith(("gate.", "verdict", "promotion.")):
                client.delete_model_version_tag("salt", version.version, tag)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 40 MB at `folder`; skips the test where none can be mounted."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Take the last byte of a disk by the file ``filler``; unbuffered, so that nothing is left to write at closing."""
    with (disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"0" * 4096)
