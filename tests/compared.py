"""A finished run for the tests of the report: four strategies, two seeds each, and the files that all stages left."""

from __future__ import annotations

from pathlib import Path

from run_files import write_evaluation, write_preparation, write_project, write_robustness, write_training

from retemper.config.settings import Settings
from retemper.records.registration import BestSeed, Registration

STRATEGIES = ["scratch", "naive", "lora", "replay"]


def write_comparison(root: Path, tiny_model: Path) -> Settings:
    """Naive and lora alike on the target, replay behind but with the best retention."""
    settings = write_project(root, tiny_model, STRATEGIES, [1, 2])
    write_preparation(root)
    models = {1: tiny_model, 2: tiny_model}
    for name in STRATEGIES:
        labels = "original" if name == "replay" else None
        write_training(root, name, models, replay=labels, trainable=50 if name == "lora" else 1000)
    write_evaluation(root, "foundation", {0: 200.0}, {0: 30.0}, 30.0)
    write_evaluation(root, "scratch", {1: 90.0, 2: 92.0}, {1: 3000.0, 2: 3100.0}, 30.0)
    write_evaluation(root, "naive", {1: 30.0, 2: 31.0}, {1: 300.0, 2: 310.0}, 30.0)
    write_evaluation(root, "lora", {1: 31.0, 2: 32.0}, {1: 150.0, 2: 152.0}, 30.0)
    for name in ("foundation", *STRATEGIES):
        share = 95.0 if name in ("foundation", "replay") else 60.0
        write_robustness(root, name, {"md": share, "observables": None}, 0 if name == "foundation" else 1)
    for name in STRATEGIES:
        best = BestSeed.model_validate({"seed": 1, "version": "1", "sha256": "0" * 64})
        record = Registration(model="salt", versions={1: "1", 2: "2"}, best=best)
        record.write(root / f"runs/register/{name}.json")
    heads = {1: 31.0, 2: 31.5}
    write_evaluation(root, "replay", {1: 45.0, 2: 46.0}, {1: 60.0, 2: 61.0}, 30.0, replay_head=heads)
    return settings
