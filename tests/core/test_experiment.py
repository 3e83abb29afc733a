"""A DVC experiment moves nothing in the registry; once applied, it is registered and judged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import build_tiny
from promoted import build, set_gates
from run_files import water_frames, write_evaluation, write_training

from retemper.config.project import Project
from retemper.data.frames import write_frames
from retemper.records.runs import read_results
from retemper.tracking.store import connect

REPOSITORY = Path(__file__).resolve().parents[2]
GATES = [{"metric": "target.force_rmse", "max": 60.0}]
DVC = """
stages:
  inputs:
    cmd: python -m pipelines.inputs
    outs: [runs/inputs: {persist: true}]
    always_changed: true
  register:
    matrix: {strategy: [naive, replay]}
    cmd: python -m pipelines.register ${item.strategy}
    deps: [runs/inputs/register.json, "runs/finetune/${item.strategy}", "runs/evaluate/${item.strategy}"]
    outs: ["runs/register/${item.strategy}.json"]
  promote:
    cmd: python -m pipelines.promote
    deps: [runs/inputs/promote.json, runs/finetune, runs/evaluate, runs/register]
    outs: [runs/promote]
"""


def run(root: Path, *command: str) -> str:
    """A command in the project, which uses this package; its output."""
    paths = [str(REPOSITORY), str(REPOSITORY / "platform")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def state(root: Path) -> dict[str, Any]:
    client: Any = connect(root)
    model = client.get_registered_model("salt")
    return {
        "versions": sorted(int(v.version) for v in client.search_model_versions("name = 'salt'")),
        "aliases": {alias: str(version) for alias, version in dict(model.aliases).items()},
        "history": (root / "promotions.jsonl").read_text(),
    }


@pytest.mark.hostile("registry")
@pytest.mark.slow
def test_an_experiment_registers_and_promotes_only_once_it_is_kept(tmp_path: Path, tiny_model: Path) -> None:
    root = build(tmp_path, tiny_model)
    set_gates(root, GATES)
    write_frames(root / "data/raw/salt.extxyz", water_frames(2))
    (root / "dvc.yaml").write_text(DVC)
    (root / ".gitignore").write_text("runs\nmlflow.db*\nmlartifacts\n.mlflow.lock\n.cache\nfoundations/*.model\n")
    for command in ("git init -q", "dvc init -q", "dvc config core.analytics false", "dvc repro -q"):
        run(root, *command.split())
    run(root, "git", "add", ".")
    run(root, "git", *"-c user.name=a -c user.email=a@b commit -qm first".split())
    before = state(root)
    assert before["aliases"] == {"candidate": "1", "champion": "1", "challenger": "3"}

    models = {k: build_tiny(tmp_path / f"new-{k}.model", ["pt_head", "Default"], seed=k + 10) for k in (3, 4)}
    write_training(root, "replay", models, replay="original")
    write_evaluation(root, "replay", {3: 20.0, 4: 20.4}, {3: 60.0, 4: 61.0}, 50.0)
    said = run(root, "dvc", "exp", "run", "-n", "better")
    assert "The experiment better registers and promotes nothing" in said
    assert state(root) == before
    assert "No verdict" in (root / "runs/promote/verdict.md").read_text()
    assert not read_results(Project.here(root), strategies=["replay"]).registered

    run(root, "dvc", "repro", "-q")
    after = state(root)
    assert after["aliases"] == {"candidate": "5", "champion": "5"}
    assert after["versions"] == [*before["versions"], 5, 6]
