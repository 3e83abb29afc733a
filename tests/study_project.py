"""A small project with a study in it: the repository's strategies, a tiny foundation, droplets as the system."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT

from retemper.core.files import sha256
from retemper.records.result import GroupErrors, Groups, Result
from retemper.study import plan, result_files, work
from retemper.study.places import RESULTS
from retemper.study.plan import Run
from retemper.study.spec import Study

BASE: dict[str, Any] = {
    "dataset": {"valid": 0.2, "test": 0.3, "energy_window": 1e4},
    "e0s": {"force": True, "max_error": 1000.0},
    "replay": {"number": 6, "valid": 3, "select": "random"},
    "finetune": {"epochs": 3, "batch_size": 4, "dtype": "float64"},
    "evaluate": {"confidence": 0.9},
}
CENTRE = {"system": "salt", "foundation": "tiny", "strategy": "naive", "size": 8}


def make_project(
    root: Path, model: Path, frames: Path, pool: Path | None = None, retention: Path | None = None
) -> Path:
    """Folders and files; `frames` become the system ``salt``, `pool` and `retention` the foundation's own."""
    shutil.copytree(ROOT / "strategies", root / "strategies")
    for folder in ("foundations", "systems", "studies", "data/raw"):
        (root / folder).mkdir(parents=True)
    shutil.copy(model, root / "foundations/tiny.model")
    entry = {"about": "tiny", "level_of_theory": "none", "licence": "MIT", "citation": "none"}
    entry |= {"file": "foundations/tiny.model", "sha256": sha256(model)}
    for name, path in (("pool", pool), ("retention", retention)):
        if path is not None:
            shutil.copy(path, root / f"foundations/{name}.extxyz")
            entry[name] = f"foundations/{name}.extxyz"
    (root / "foundations/foundations.yaml").write_text(yaml.safe_dump({"tiny": entry}))
    shutil.copy(frames, root / "data/raw/salt.extxyz")
    system = {"about": "droplets", "elements": "H O Na Cl", "level_of_theory": "GFN2-xTB", "licence": "MIT"}
    system |= {"citation": "none", "files": ["data/raw/salt.extxyz"], "group": "group", "keys": {"stress": None}}
    (root / "systems/salt.yaml").write_text(yaml.safe_dump(system))
    shutil.copy(ROOT / "params.yaml", root / "params.yaml")
    return root


def empty_project(folder: Path) -> Path:
    """A project whose files hold no structures: nothing is computed."""
    for name in ("model", "frames", "pool", "retention"):
        (folder / name).write_text(f"1\nProperties=species:S:1:pos:R:3 what={name}\nH 0 0 0\n")
    return make_project(folder / "project", *(folder / name for name in ("model", "frames", "pool", "retention")))


def study(root: Path, **change: Any) -> Study:
    """The study ``some`` of a project, written and read."""
    content: dict[str, Any] = {"base": BASE, "centre": CENTRE, **change}
    content.setdefault("designs", {"all": {"axes": {"strategy": ["naive", "replay"], "seed": [1, 2]}}})
    (root / "studies/some.yaml").write_text(yaml.safe_dump(content))
    return Study.model_validate({"name": "some", **content})


def runs(root: Path, **change: Any) -> list[Run]:
    """The runs of that study."""
    return plan.runs(study(root, **change), root)


def write_result(run: Run, force: float = 50.0, seconds: float = 10.0, **more: Any) -> None:
    """A result as a finished run leaves it."""
    values = {"target.force_rmse": force, "target.force_rmse.low": 0.9 * force, "target.force_rmse.high": 1.1 * force}
    values |= {"target.energy_rmse": 3.0, "retention.force_rmse": 2 * force, "forgetting_ratio": 2.0}
    values |= {"robustness.rss": 25.0, "robustness.rss.low": 15.0, "robustness.rss.high": 39.0}
    content = {
        "values": values,
        "foundation": {"target.force_rmse": 400.0, "target.energy_rmse": 9.0, "retention.force_rmse": force},
        "counts": {"rss": 48},
        "unmeasured": {},
        "e0s": {"error": 12.5, "rank": 3, "elements": 4, "open": ["Na", "Cl"]},
        "structures": {"train": 8, "valid": 3, "test": 5, "isolated": 0, "unused": 0, "rejected": 1},
        "elements": ["H", "O"],
        "training": {
            "key": "0" * 16,
            "best_epoch": 2,
            "epochs": 3,
            "sha256": "0" * 64,
            "trainable": 9,
            "parameters": 10,
        },
        "groups": Groups(model=GroupErrors(), foundation=GroupErrors()),
        "cost": work.cost(run),
        "versions": {},
        "code": {},
        "cpu_seconds": seconds,
    }
    result_files.keep(run.root / RESULTS / f"{run.key}.json", Result.model_validate({**content, **more}))
