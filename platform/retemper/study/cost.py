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
from pathlib import Path

import numpy as np

from retemper.records.result import Result
from retemper.study import result_files
from retemper.study.jobs import Job
from retemper.study.places import RESULTS, spent_on
from retemper.study.plan import Run
from retemper.study.work import FACTORS, POOL_ATOMS, work

FEW = 2.0  # runs that weigh as much as the assumption that a factor is one


@dataclass(frozen=True)
class Model:
    """Expected seconds of a run; without finished runs a measure of its work, in no unit."""

    parts: tuple[float, ...]  # seconds for each unit of `work`
    factors: Mapping[str, float]  # by axis and level
    runs: int  # that it was fitted on
    spread: float  # relative error of a single run, as a factor; 1 is none

    def seconds(self, run: Run) -> float:
        """Expected CPU seconds of a run."""
        value = float(np.dot(self.parts, work(run)))
        for axis in FACTORS:
            value *= self.factors.get(f"{axis} {run.levels[axis]}", 1.0)
        return value


def fit(root: Path) -> Model:
    """The model from all results of finished runs below `root`."""
    from scipy.optimize import nnls

    results = [result_files.load(path) for path in sorted((root / RESULTS).glob("*.json"))]
    finished = [result for result in results if isinstance(result, Result) and result.cpu_seconds > 0]
    if not finished:
        return Model((0.0, 1.0, POOL_ATOMS, 0.0), {}, 0, 1.0)
    seconds = np.array([result.cpu_seconds for result in finished])
    amounts = np.array([result.cost.work for result in finished])
    rows = amounts / seconds[:, None]
    scale = rows.max(axis=0)
    scale[scale == 0] = 1.0
    parts = nnls(rows / scale, np.ones(len(finished)))[0] / scale
    residuals = np.log(seconds / np.maximum(amounts @ parts, 1e-9))
    factors: dict[str, float] = {}
    for axis in FACTORS:
        levels = np.array([getattr(result.cost, axis) for result in finished])
        for level in np.unique(levels):
            of_level = residuals[levels == level]
            effect = float(of_level.sum() / (len(of_level) + FEW))
            factors[f"{axis} {level}"] = math.exp(effect)
            residuals[levels == level] -= effect
    spread = math.exp(float(np.sqrt(np.mean(residuals**2))))
    return Model(tuple(map(float, parts)), factors, len(finished), spread)


def stage_seconds(jobs: Sequence[Job]) -> dict[str, float]:
    """Mean CPU seconds of the stages of each kind that are done."""
    seconds: dict[str, list[float]] = {}
    for job in jobs:
        if job.kind != "run" and job.done:
            seconds.setdefault(job.kind, []).append(spent_on(job.folder))
    return {kind: sum(values) / len(values) for kind, values in seconds.items()}
