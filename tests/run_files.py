"""Builds a small project with files under ``runs/`` as the stages write them, for the tests of what comes after."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import prepared
import yaml
from ase import Atoms
from conftest import ROOT, as_trained

from retemper.config.settings import Settings, load_settings
from retemper.config.strategies import Strategy
from retemper.config.strict_yaml import read_yaml
from retemper.core import weight_files
from retemper.core.files import sha256
from retemper.data.frames import write_frames
from retemper.records.evaluation import Evaluation
from retemper.records.origin import Commit, Origin
from retemper.records.robustness import ModelMeasure, ModelRobustness, Robustness
from retemper.records.trained_model import TrainedModel
from retemper.records.training import Configuration, Effective, LossSettings, Ran, SeedOutcome, TrainingSummary
from retemper.records.verdict import Verdict


def water_frames(number: int, seed: int = 0) -> list[Atoms]:
    """Rattled water dimers with a sodium ion, with smooth made-up labels."""
    random = np.random.default_rng(seed)
    frames = []
    for index in range(number):
        one = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
        positions = np.vstack([one, one + np.array([0.2, 0.1, 2.8]), [[2.3, 0.4, 1.2]]]) + random.normal(
            0.0, 0.08, (7, 3)
        )
        atoms = Atoms("OH2OH2Na", positions=positions)
        atoms.info |= {"REF_energy": -100.0 - 0.1 * index, "config_type": ("dimer", "salt")[index % 2]}
        forces = random.normal(0.0, 1.0, (7, 3))
        atoms.arrays["REF_forces"] = forces - forces.mean(axis=0)  # no net force
        frames.append(atoms)
    return frames


def write_project(
    root: Path, foundation: Path, strategies: Sequence[str] = ("naive",), seeds: Sequence[int] = (1,)
) -> Settings:
    """``params.yaml``, catalogue with the model file `foundation`, data sets and E0s."""
    (root / "foundations").mkdir(parents=True)
    shutil.copy(foundation, root / "foundations/tiny.model")
    write_frames(root / "foundations/retention.extxyz", water_frames(4, seed=9))
    entry = {
        "about": "tiny",
        "level_of_theory": "PBE",
        "licence": "MIT",
        "citation": "none",
        "file": "foundations/tiny.model",
        "sha256": sha256(foundation),
        "retention": "foundations/retention.extxyz",
    }
    (root / "foundations/foundations.yaml").write_text(yaml.safe_dump({"tiny": entry}))
    params = {
        "system": "salt",
        "foundation": "tiny",
        "strategies": list(strategies),
        "seeds": list(seeds),
        "dataset": {"files": ["data/raw/salt.extxyz"], "level_of_theory": "GFN2-xTB"},
        "tracking": {"experiment": "test"},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    for index, name in enumerate(("train", "valid", "test")):
        write_frames(root / f"runs/dataset/{name}.extxyz", water_frames(4, seed=index))
    for folder in ("replay", "pseudolabel"):
        for index, name in enumerate(("train", "valid")):
            write_frames(root / f"runs/{folder}/{name}.extxyz", water_frames(3, seed=20 + index))
    return load_settings(root / "params.yaml")


def history(epochs: int, scale: float = 1.0, replay: bool = False) -> list[dict[str, float]]:
    """Rows of ``history.csv`` that fall towards a floor."""
    rows = []
    for epoch in range(epochs):
        level = scale * (1.0 + 9.0 * math.exp(-epoch / 4.0))
        row = {"epoch": epoch, "train_loss": 0.01 * level, "lr": 0.001, "seconds": 2.0, "valid_loss": 0.011 * level}
        row |= {"valid.loss": 0.011 * level, "valid.energy_rmse": 2.0 * level, "valid.force_rmse": 20.0 * level}
        if replay:
            row |= {
                "valid_replay.loss": 0.02,
                "valid_replay.energy_rmse": 11.0,
                "valid_replay.force_rmse": 45.0 + epoch,
            }
        rows.append(row)
    return rows


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_training(
    root: Path,
    strategy: str,
    models: Mapping[int, Path],
    *,
    epochs: int = 5,
    replay: str | None = None,
    scale: float = 1.0,
    trainable: int = 900,
    differences: Sequence[str] = (),
) -> None:
    """Folders of the seeds with a copy of `models`, and the summary."""
    outcomes = {}
    for seed, model in models.items():
        folder = root / f"runs/finetune/{strategy}/seed-{seed}"
        rows = history(epochs, scale * (1.0 + 0.05 * seed), replay is not None)
        write_table(folder / "history.csv", rows)
        as_trained(model, folder / weight_files.NAME)
        (folder / "mace.yaml").write_text("lr: 0.001\n")
        asked = configuration(epochs)
        effective = Effective(asked=asked, ran=Ran(**dict(asked)), differences=list(differences))
        effective.write(folder / "effective.json")
        outcomes[seed] = outcome(
            best_epoch=epochs - 1,
            epochs=epochs,
            converged=False,
            valid_loss=rows[-1]["valid_loss"],
            seconds=2.0 * epochs,
            sha256=sha256(folder / weight_files.NAME),
            key=f"key-{strategy}-{seed}",
            trainable=trainable,
            ended=(folder / "history.csv").stat().st_mtime,
        )
    write_summary(root, strategy, outcomes, replay)


def configuration(epochs: int) -> Configuration:
    """What is asked of a training with one head."""
    loss = LossSettings(
        kind="UniversalLoss", energy_weight=10.0, forces_weight=10.0, stress_weight=1.0, huber_delta=0.01
    )
    return Configuration(
        heads=["Default"], elements=[1, 8, 11], E0s={"Default": {1: -1.0, 8: -8.0, 11: -11.0}}, optimizer="AdamW",
        lr=0.001, weight_decay=0.0, ema_decay=0.999, clip_grad=1.0, scheduler="ReduceLROnPlateau", batch_size=4,
        max_epochs=epochs, dtype="float64", loss=loss, frames={"Default": [40, 6]}, lora=None,
        starts_from_foundation=True,
    )  # fmt: skip


def outcome(**given: Any) -> SeedOutcome:
    """What a training came to; `given` in place of the values here."""
    content = {
        "best_epoch": 0, "best_loss": 0.1, "epochs": 2, "seconds": 4.0, "cpu_seconds": 3.0, "started_from": 0,
        "converged": True, "valid_loss": 0.1, "parameters": 1000, "trainable": 900, "moved": 900, "key": "k",
        "sha256": "0" * 64, "ended": 1.7e9,
    }  # fmt: skip
    return SeedOutcome(**{**content, **given})


def write_summary(
    root: Path, strategy: str, seeds: Mapping[int, SeedOutcome], replay: str | None = None
) -> TrainingSummary:
    """``runs/finetune/<strategy>/summary.json``; `replay` are the labels that the strategy replays."""
    settings = {"name": strategy, "about": "a test's", "replay": replay and {"labels": replay}}
    summary = TrainingSummary(
        strategy=strategy,
        foundation="tiny",
        settings=Strategy.model_validate({**read_yaml(ROOT / "strategies/base.yaml"), **settings}),
        found_by_sweep={},
        origin=Origin(git=Commit(commit=None, dirty=None), machine={}, versions={}),
        seeds=dict(seeds),
    )
    (root / f"runs/finetune/{strategy}").mkdir(parents=True, exist_ok=True)
    summary.write(root / f"runs/finetune/{strategy}/summary.json")
    return summary


def measured(force: float, energy: float, spread: float = 0.05, own: float | None = None) -> dict[str, Any]:
    """One M of ``metrics.json`` with intervals of `spread` either side; `own` is the foundation's, on its own set."""

    def value(centre: float) -> dict[str, float]:
        return {"value": centre, "low": centre * (1 - spread), "high": centre * (1 + spread)}

    kinds = {
        name: {"n_frames": 2, "energy_rmse": energy * f, "force_rmse": force * f}
        for name, f in (("dimer", 0.8), ("salt", 1.2))
    }
    return {
        "n_frames": 4,
        "n_groups": 4,
        **({} if own is None else {"forgetting_ratio": value(force / own)}),
        "energy_mae": value(0.8 * energy),
        "energy_rmse": value(energy),
        "force_mae": value(0.7 * force),
        "force_rmse": value(force),
        "stress_mae": None,
        "stress_rmse": None,
        "by_config_type": kinds,
        "by_element": {"O": {"n_atoms": 8, "force_mae": 0.7 * force, "force_rmse": force}},
    }


def write_evaluation(
    root: Path,
    name: str,
    force: Mapping[int, float],
    retention: Mapping[int, float],
    own: float,
    *,
    energy: float = 3.0,
    replay_head: Mapping[int, float] | None = None,
    spread: float = 0.05,
    frames_of: str = "t1",
) -> None:
    """``runs/evaluate/<name>`` from target and retention force RMSE by seed (meV/A); `own` is the foundation's."""

    def summary(values: Sequence[float]) -> dict[str, Any]:
        mean = float(np.mean(values))
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        half = mean * spread + (std or 0.0)
        return {"value": mean, "std": std, "low": mean - half, "high": mean + half}

    def both(f: Sequence[float], e: float) -> dict[str, Any]:
        return {"energy_rmse": summary([e] * len(f)), "force_rmse": summary(f)}

    seeds: dict[str, Any] = {}
    for seed in force:
        seeds[str(seed)] = {
            "target": measured(force[seed], energy, spread),
            "retention": measured(retention[seed], 30.0, spread, own),
        }
        if replay_head is not None:
            seeds[str(seed)]["retention_replay_head"] = measured(replay_head[seed], 25.0, spread, own)
    totals = {
        "target": both(list(force.values()), energy),
        "retention": both(list(retention.values()), 30.0),
        "forgetting_ratio": summary([value / own for value in retention.values()]),
    }
    if replay_head is not None:
        totals["forgetting_ratio_replay_head"] = summary([value / own for value in replay_head.values()])
    folder = root / "runs/evaluate" / name
    identity = {"foundation_sha256": "0" * 64, "target": frames_of, "retention": "r1", "dtype": "float64"}
    about = {"form": 1, "name": name, "system": "salt", "foundation": "tiny", "identity": identity}
    Evaluation.of({**about, "seeds": seeds, "summary": totals}, "made here").write(folder / "metrics.json")
    sets = {"target": force, "retention": retention} | ({"retention_replay_head": replay_head} if replay_head else {})
    write_frames_csv(folder / "frames.csv", sets, energy)
    random = np.random.default_rng(0)
    rows = []
    for seed in force:
        for kind, error in (("target", force[seed]), ("retention", retention[seed])):
            for reference in random.normal(0.0, 1.5, 300):
                predicted = reference + random.normal(0.0, 1e-3 * error)
                rows.append({"seed": seed, "set": kind, "reference": reference, "predicted": predicted})
    write_table(folder / "parity.csv", rows)


def write_frames_csv(path: Path, sets: Mapping[str, Mapping[int, float]], energy: float, frames: int = 40) -> None:
    """Errors of each frame, four a group, with exactly the RMSE asked for; hard frames are hard for every model."""
    hard = np.random.default_rng(1).lognormal(0.0, 0.5, frames)
    rows = []
    for part, by_seed in sets.items():
        for seed, force in by_seed.items():
            own = hard * np.random.default_rng([seed, int(1000 * force)]).lognormal(0.0, 0.05, frames)
            own *= force / np.sqrt(np.mean(own**2))
            for index in range(frames):
                row = {
                    "seed": seed,
                    "set": part,
                    "head": "Default",
                    "frame": index,
                    "n_atoms": 7,
                    "config_type": "salt",
                    "group": f"trajectory {index // 4}",
                }
                rows.append({**row, "energy_error": energy * (-1) ** index, "force_rmse": own[index]})
    write_table(path, rows)


def write_robustness(root: Path, name: str, values: Mapping[str, float | None], seed: int = 1) -> None:
    """``runs/robustness/<name>/metrics.json`` of one seed from a share in % of each metric; None: not measured."""
    from retemper.evaluation.robustness.stage import summary

    metrics = {}
    for metric, value in values.items():
        measure = ModelMeasure(
            value=value, unit="%", n=20, groups=10, grouped_by="compositions", details={}, identity={}
        )
        if value is None:
            measure.reason = "no oracle"
        else:
            measure.low, measure.high, measure.score = max(0.0, value - 5), min(100.0, value + 5), value / 100
        metrics[metric] = measure
    model = ModelRobustness(
        name=f"{name} seed {seed}",
        head=None,
        level="quick",
        elements=["O"],
        backend="torch",
        seconds=1.0,
        metrics=metrics,
    )
    about = {"name": name, "system": "salt", "foundation": "tiny", "level": "quick"}
    (root / "runs/robustness" / name).mkdir(parents=True, exist_ok=True)
    Robustness.model_validate({**about, "seeds": {seed: model}, "summary": summary([model])}).write(
        root / f"runs/robustness/{name}/metrics.json"
    )


def write_verdict(
    root: Path,
    candidates: Mapping[str, tuple[float, int, Sequence[bool]]],
    champion: str | None = None,
    before: TrainedModel | None = None,
) -> None:
    """``runs/promote/verdict.json``; `candidates` are the objective, the seed, and whether each gate passes."""
    gate = {"metric": "target.force_rmse", "rule": "r", "absolute": True, "value": 1.0, "low": None, "high": None}
    gate |= {"level": 0.95, "groups": 6, "unit": "meV/Å", "limit": None, "compared": None, "reason": "holds"}
    judged = {
        name: {
            "rank": 1,
            "version": "1",
            "chosen": "the only seed",
            "sha256": "0" * 64,
            "failures": [],
            "objective": objective,
            "seed": seed,
            "absolute": True,
            "passed": all(gates),
            "barred": None,
            "gates": [{**gate, "passed": passed} for passed in gates],
        }
        for name, (objective, seed, gates) in candidates.items()
    }
    about = {"model": "salt", "objective": "target.force_rmse", "gates": [], "gates_digest": "0", "before": None}
    about |= {"obstacle": None, "foundation": "tiny", "level": "PBE", "foundation_level": "PBE", "look": 1}
    about |= {"test_frames": "t", "challenger": None, "champion": champion, "candidates": judged}
    about["champion_before"] = None if before is None else asdict(before)
    Verdict.of({"form": 1, **about}, "test").write(root / "runs/promote/verdict.json")


def write_preparation(root: Path, *, deficient: Sequence[str] = ()) -> None:
    """Manifest of the data set and the E0 doctor's result."""
    prepared.replay().write(root / "runs/replay/manifest.json")
    prepared.pseudolabel().write(root / "runs/pseudolabel/manifest.json")
    prepared.manifest().write(root / "runs/dataset/manifest.json")
    numbers = (1, 8, 11)
    doctor = prepared.e0s({z: -1.1 * z for z in numbers})
    evidence = doctor.evidence | {
        symbol: doctor.evidence[symbol].model_copy(update={"rests_on": "frames and foundation", "standard_error": None})
        for symbol in deficient
    }
    doctor = doctor.model_copy(
        update={
            "E0s": {z: -1.1 * z for z in (1, 6, *numbers[1:])},
            "rank": len(numbers) - len(deficient),
            "deficient": list(deficient),
            "open_ratios": ["H : O = 2 : 1"] if deficient else [],
            "evidence": evidence,
        }
    )
    doctor.write(root / "runs/e0s/e0s.json")
