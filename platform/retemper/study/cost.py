"""How long runs take: a model of the CPU seconds, fitted on the runs that are finished, of whatever study.

The seconds of a run are a sum of non-negative parts (a constant, one for each atom trained on, one for each replayed
structure, one for each robustness metric), fitted to the relative error by non-negative least squares (Lawson, Hanson,
Solving Least Squares Problems, 1974), times what systems, strategies and foundations take beyond that, shrunk towards
one where few runs say so. Sums extrapolate to sizes that no run had as the work itself does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from retemper.study import kept
from retemper.study.jobs import RESULTS, Job, spent_on
from retemper.study.plan import Run
from retemper.systems.listing import size as count

FACTORS = ("system", "strategy", "foundation")
FEW = 2.0  # runs that weigh as much as the assumption that a factor is one
POOL_ATOMS = 10.0  # of a replayed structure; only the order of runs without any fit depends on it


@dataclass(frozen=True)
class Model:
    """Expected seconds of a run; without finished runs a measure of its work, in no unit."""

    parts: tuple[float, ...]  # seconds for each unit of `work`
    factors: Mapping[str, float]  # by axis and level
    runs: int  # that it was fitted on
    spread: float  # relative error of a single run, as a factor; 1 is none

    def of(self, run: Run) -> float:
        """Expected CPU seconds of a run."""
        value = float(np.dot(self.parts, work(run)))
        for axis in FACTORS:
            value *= self.factors.get(f"{axis} {run.levels[axis]}", 1.0)
        return value


def work(run: Run) -> tuple[float, ...]:
    """One, atoms trained on, replayed structures, robustness metrics."""
    settings, strategy = run.settings, run.strategy
    frames, atoms = structures(run)
    train = frames if settings.dataset.max_train is None else min(frames, settings.dataset.max_train)
    epochs = settings.finetune.epochs
    batch = min(train, strategy.training.batch_size or settings.finetune.batch_size)
    replayed = strategy.replay.batch_size * math.ceil(train / batch) if strategy.replay else 0
    return 1.0, epochs * train * atoms, float(epochs * replayed), float(len(settings.robustness.metrics))


def structures(run: Run) -> tuple[int, float]:
    """About how many training structures a system has, and their mean number of atoms."""
    dataset = run.settings.dataset
    frames, atoms = (sum(part) for part in zip(*(_counted(run.root / f) for f in dataset.files), strict=True))
    share = 1 - dataset.valid - (0 if dataset.test_files else dataset.test)
    return max(1, round(frames * share)), atoms / max(1, frames)


def _counted(path: Path) -> tuple[int, int]:
    """Frames and atoms of a file; where it is no extxyz, as if it had a hundred frames of twenty atoms."""
    if ".xyz" not in path.name and ".extxyz" not in path.name:
        return 100, 2000
    return _count(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _count(path: Path, mtime: int) -> tuple[int, int]:
    """`mtime` is there for the cache's key."""
    return count(path)


def about(run: Run) -> dict[str, Any]:
    """What a result keeps of the run, so that runs of other studies can be estimated from it."""
    return {"work": list(work(run)), **{axis: str(run.levels[axis]) for axis in FACTORS}}


def fit(root: Path) -> Model:
    """The model from all results of finished runs below `root`."""
    from scipy.optimize import nnls

    every = [kept.load(path) for path in sorted((root / RESULTS).glob("*.json"))]
    known = [found for found in every if found is not None and "failed" not in found and found["cpu_seconds"] > 0]
    if not known:
        return Model((0.0, 1.0, POOL_ATOMS, 0.0), {}, 0, 1.0)
    seconds = np.array([found["cpu_seconds"] for found in known])
    done = np.array([found["cost"]["work"] for found in known])
    rows = done / seconds[:, None]
    scale = rows.max(axis=0)
    scale[scale == 0] = 1.0
    parts = nnls(rows / scale, np.ones(len(known)))[0] / scale
    left = np.log(seconds / np.maximum(done @ parts, 1e-9))
    factors: dict[str, float] = {}
    for axis in FACTORS:
        levels = np.array([found["cost"][axis] for found in known])
        for level in np.unique(levels):
            own = left[levels == level]
            effect = float(own.sum() / (len(own) + FEW))
            factors[f"{axis} {level}"] = math.exp(effect)
            left[levels == level] -= effect
    spread = math.exp(float(np.sqrt(np.mean(left**2))))
    return Model(tuple(map(float, parts)), factors, len(known), spread)


def of_stages(jobs: Sequence[Job]) -> dict[str, float]:
    """Mean CPU seconds of the stages of each kind that are done."""
    taken: dict[str, list[float]] = {}
    for job in jobs:
        if job.kind != "run" and job.done:
            taken.setdefault(job.kind, []).append(spent_on(job.folder))
    return {kind: sum(values) / len(values) for kind, values in taken.items()}
