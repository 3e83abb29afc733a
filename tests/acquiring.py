"""A small project of water dimers whose two models are given: where a round of active learning begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import run_files
import yaml
from ase import Atoms
from ase.build import molecule
from conftest import as_trained

from retemper.active.label import put
from retemper.config.project import Project
from retemper.config.settings import Acquire
from retemper.data import rounds
from retemper.data.frames import write_frames
from retemper.records.origin import Commit
from retemper.records.round import Calibration, Chosen, Failed, Hashes, Round
from retemper.systems.xtb import calculator


def waters(number: int, seed: int, group: str) -> list[Atoms]:
    """Labelled water dimers near each other."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(number):
        atoms = molecule("H2O")
        other = molecule("H2O")
        other.positions += (0.3, 0.2, 2.9)
        atoms += other
        atoms.positions = (atoms.positions + rng.normal(0, 0.05, (6, 3))).round(8)
        work = atoms.copy()
        work.calc = calculator()
        put(atoms, work.get_potential_energy(), work.get_forces(), None)
        atoms.info |= {"group": f"{group} {k // 2}", "source": f"{group}:{k}", "config_type": "gas"}
        frames.append(atoms)
    return frames


def project(root: Path, model: Path, oracle: Any = "xtb", **acquired: Any) -> Project:
    """A project whose two models are given as trained: the same weights under two seeds."""
    run_files.write_project(root, model, seeds=(1, 2))
    for name, number, seed in (("train", 8, 0), ("valid", 4, 1), ("test", 4, 2)):
        write_frames(root / f"runs/dataset/{name}.extxyz", waters(number, seed, name))
    folder = root / "runs/finetune/naive"
    for seed in (1, 2):
        (folder / f"seed-{seed}").mkdir(parents=True)
        as_trained(model, folder / f"seed-{seed}/model.safetensors")
    seeds = {1: run_files.outcome(valid_loss=0.2), 2: run_files.outcome(valid_loss=0.1)}
    run_files.write_summary(root, "naive", seeds)
    params = yaml.safe_load((root / "params.yaml").read_text())
    rattle = {"name": "rattle", "options": {"amplitudes": [0.12]}}
    own = {"explorers": [rattle], "candidates": 30, "labels": 5, "workers": 1, "oracle": oracle, "trust": None}
    params["acquire"] = {**own, **acquired}
    params["dataset"]["max_force"] = 1e6  # the model is not trained
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return Project.here(root)


def calibration(*, informative: bool = True) -> Calibration:
    """Of some uncertainty."""
    low = 0.4 if informative else -0.1
    return Calibration(
        frames=9, groups=3, atoms=50, alpha=0.3, floor=0.0, spearman=0.5, spearman_low=low, spearman_high=0.6,
        auroc=0.8, miscalibration=0.05, rmse=0.1, informative=informative,
    )  # fmt: skip


def write_round(
    root: Path, number: int, *, level: str = "GFN2-xTB", labelled: int = 4, failed: tuple[str, ...] = (), **more: Any
) -> Round:
    """``round.json`` of a round of so many labels, and of failures for these reasons."""
    found = more.pop("calibration", calibration())
    content = {
        "round": number, "labels": labelled + len(failed), "seed": number, "strategy": "naive", "champion": False,
        "models": {1: "0" * 64}, "lead": 1, "data": Hashes(train="t", valid="v"), "oracle_check": None,
        "settings": Acquire(), "level_of_theory": level, "git": Commit(commit=None, dirty=None), "software": {},
        "candidates": 12, "unphysical": 0, "turned_away": {}, "notes": [], "calibration": found, "prospective": found,
        "labelled": [Chosen(formula="H2O", label=f"label {k}") for k in range(labelled)],
        "failed": [Failed(formula="H2O", label="label", reason=reason) for reason in failed],
        "identity": f"id{number}", "returned": None,
    }  # fmt: skip
    record = Round.model_validate(content | more)
    record.write(root / "data/rounds" / rounds.name(number) / rounds.RECORD)
    return record
