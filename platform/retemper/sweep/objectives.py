"""What a trial is judged by: errors on the target's validation set and on the pretraining distribution, and holes.

Retention is the force error of the head that is used afterwards (the target's) on the validation
structures of the replay stage: pretraining structures with their original labels, or the foundation's
where they have none, that no training set and no held-out retention set holds. For multihead strategies the replay
head is measured too.
Holes, where asked for, are the robustness suite's cheapest probe: the share of dimer and compression
curves of the target's elements and structures without a repulsive wall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.config.project import Project
from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.data.frames import FORCES, is_isolated_atom, read_frames
from retemper.data.grouping import groups_of
from retemper.finetune.plan import Plan
from retemper.models.head_names import TARGET
from retemper.records.runs import read_history
from retemper.records.sweep import GroupErrors
from retemper.sweep import alike

RETENTION = "retention"
HOLES = "holes"
REPLAYED = "valid_replay"  # with what begins so, the columns of a history that are of replayed heads


def retention_file(project: Project) -> Path | None:
    """Validation structures of the replay stage; `None` when the foundation brings no pool."""
    path = project.replay / "valid.extxyz"
    return path if path.is_file() and path.stat().st_size else None


def check(objectives: Sequence[str], retention: Path | None) -> None:
    """Raise when retention is asked for and there is nothing to measure it on."""
    if RETENTION in objectives and retention is None:
        raise RetemperError(
            "The sweep is to watch retention, but there are no pretraining structures to measure it on.",
            expected="validation structures in runs/replay",
            fix="dvc repro replay, or sweep.objectives to [target]",
        )


def probe(path: str, device: str, dtype: str) -> Callable[[Any], dict[str, float]]:
    """A function that gives the force error of a model in training on the structures of `path`, meV/A."""
    from retemper.models.mace import batches, default_dtype

    frames = _frames(path)
    prepared: list[Any] = []

    def measure(model: Any) -> dict[str, float]:
        square = count = 0.0
        with default_dtype(dtype):
            if not prepared:
                prepared.extend(batches(model, frames, TARGET, device))
            for indices, batch in prepared:
                forces = model(batch, training=False, compute_force=True)["forces"].detach().cpu().double().numpy()
                difference = forces - np.concatenate([frames[i].arrays[FORCES] for i in indices])
                square += float((difference**2).sum())
                count += difference.size
        return {"valid_retention.force_rmse": 1e3 * math.sqrt(square / count)}

    return measure


@lru_cache(maxsize=4)
def _frames(path: str) -> list[Atoms]:
    """Structures of a file, read once a process."""
    return [atoms for atoms in read_frames(path) if not is_isolated_atom(atoms)]


def holes(plan: Plan, model: Path) -> float:
    """Share of the curves of `retemper.evaluation.robustness.metrics.short_range` (quick) without a wall, %."""
    from retemper.evaluation.robustness.context import Context
    from retemper.evaluation.robustness.metrics import short_range
    from retemper.models import evaluators
    from retemper.simulation.engine import compute

    frames = _frames(plan.target.valid)
    subject = evaluators.describe(str(model), head=TARGET, device=plan.device)
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    context = Context(subject, tuple(elements), frames=frames)
    walls = short_range.measure(context, {key: compute(task) for key, task in short_range.plan(context).items()})
    if walls.value is None:
        raise RetemperError(f"Holes cannot be measured: {walls.reason}")
    return 100.0 - walls.value


def measure(plan: Plan, folder: Path, retention: str | None, objectives: Sequence[str] = ()) -> dict[str, float]:
    """What the model of a finished run is worth, from its best epoch and, away from it, from the model itself.

    Its errors by group are left in the folder (`alike.FILE`).

    Returns
    -------
    dict
        ``target`` (force RMSE, meV/A), ``target_energy`` (meV/atom), ``target-loss``, ``retention`` and, for
        multihead strategies, ``replay_head`` (meV/A); ``holes`` (%) where it is an objective.
    """
    history = read_history(folder / "history.csv")
    best = min(history, key=lambda row: row["valid_loss"])
    values = {
        "target": best["valid.force_rmse"],
        "target_energy": best["valid.energy_rmse"],
        "target-loss": best["valid.loss"],
    }
    if "valid_replay.force_rmse" in best:
        values["replay_head"] = best["valid_replay.force_rmse"]
    sets = {"target": plan.target.valid} | ({RETENTION: retention} if retention is not None else {})
    errors = {name: _by_group(plan, folder / weight_files.NAME, _frames(path)) for name, path in sets.items()}
    alike.write(folder, errors)
    if retention is not None:
        square, count = (sum(part.values()) for part in (errors[RETENTION].squares, errors[RETENTION].counts))
        values[RETENTION] = 1e3 * math.sqrt(square / count)
    if HOLES in objectives:
        values[HOLES] = holes(plan, folder / weight_files.NAME)
    return values


def _by_group(plan: Plan, model: Path, frames: Sequence[Atoms]) -> GroupErrors:
    """A model's force errors on `frames`, by group of structures."""
    from retemper.models.predict import predict

    predicted = predict(model, frames, head=TARGET, dtype=plan.dtype, device=plan.device, backend="torch")
    errors = GroupErrors(counts={}, squares={})
    for atoms, forces, group in zip(frames, predicted.forces, groups_of(frames), strict=True):
        square = float(((forces - atoms.arrays[FORCES]) ** 2).sum())
        errors.counts[group] = errors.counts.get(group, 0.0) + float(forces.size)
        errors.squares[group] = errors.squares.get(group, 0.0) + square
    return errors


def signal(row: dict[str, float], objectives: Sequence[str]) -> float:
    """What early stopping compares: the sum of the logarithms of the objectives at this epoch.

    With target and retention that is the logarithm of their product, the rule of scope `family`. For
    retention the worst of all heads counts, so that a setting that destroys a replayed head is
    stopped however good it is on the target. Holes are measured at the end alone and take no part.
    """
    columns = {"target": "valid.force_rmse", "target-loss": "valid.loss"}
    total = 0.0
    for name in objectives:
        if name == RETENTION:
            heads = [value for name, value in row.items() if name.startswith(REPLAYED) and name.endswith(".force_rmse")]
            value = max([row["valid_retention.force_rmse"], *heads])
        elif name == HOLES:
            continue
        else:
            value = row[columns[name]]
        total += math.log(max(value, 1e-12))
    return total
