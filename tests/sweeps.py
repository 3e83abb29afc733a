"""A small project in which real sweeps run: tiny model, few structures, the repository's strategies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import prepared
import yaml
from conftest import ROOT

from retemper.core.files import sha256
from retemper.data.frames import labels_hash, read_frames


def make_project(root: Path, files: dict[str, Any], **sweep: Any) -> Path:
    """Everything up to the sweep stage, from the sets of `trainings.make_files`; `sweep` goes into ``params.yaml``."""
    shutil.copytree(ROOT / "strategies", root / "strategies")
    (root / "foundations").mkdir()
    shutil.copy(files["model"], root / "foundations/tiny.model")
    entry = {
        "about": "tiny",
        "level_of_theory": "none",
        "licence": "MIT",
        "citation": "none",
        "file": "foundations/tiny.model",
        "sha256": sha256(files["model"]),
    }
    (root / "foundations/foundations.yaml").write_text(yaml.safe_dump({"tiny": entry}))
    params = {
        "system": "salt",
        "foundation": "tiny",
        "strategies": ["naive"],
        "seeds": [3],
        "dataset": {"files": ["data/raw/salt.extxyz"], "level_of_theory": "GFN2-xTB"},
        "sweep": sweep,
        "finetune": {"epochs": 3, "batch_size": 4, "valid_batch_size": 4, "dtype": "float64"},
        "tracking": {"experiment": "sweeps"},
    }
    write_params(root, params)
    for part in ("train", "valid"):
        for target, source in (("dataset", ""), ("replay", "replay-"), ("pseudolabel", "replay-")):
            (root / f"runs/{target}").mkdir(parents=True, exist_ok=True)
            shutil.copy(files["folder"] / f"{source}{part}.extxyz", root / f"runs/{target}/{part}.extxyz")
    prepared.replay().write(root / "runs/replay/manifest.json")
    prepared.e0s(files["target_e0s"]).write(root / "runs/e0s/e0s.json")
    labels = (labels_hash(read_frames(root / f"runs/pseudolabel/{part}.extxyz")) for part in ("train", "valid"))
    prepared.pseudolabel(sha256(files["model"]), *labels).write(root / "runs/pseudolabel/manifest.json")
    return root


def write_params(root: Path, params: dict[str, Any]) -> None:
    (root / "params.yaml").write_text(yaml.safe_dump(params))


def change(root: Path, **sweep: Any) -> None:
    """Other values in the section ``sweep`` of ``params.yaml``."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["sweep"] |= sweep
    write_params(root, params)


def change_strategy(root: Path, name: str, search: dict[str, Any]) -> None:
    """Another search space for a strategy."""
    path = root / f"strategies/{name}.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "search": search}))


def command(stage: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"pipelines.{stage}", *arguments]


def environment(**more: str) -> dict[str, str]:
    """The environment of a stage started in a project elsewhere."""
    path = os.pathsep.join([str(ROOT / "platform"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore", **more}


def stage(root: Path, name: str, *arguments: str) -> str:
    """Run a stage to its end and return what it printed."""
    done = subprocess.run(
        command(name, *arguments), cwd=root, env=environment(), capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
