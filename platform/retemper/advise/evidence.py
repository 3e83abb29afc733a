"""What finished studies say of strategies, foundations and settings for a scope.

A run's score is log(target forces) + lambda log(retention forces), lambda 0, 1, 4 for the scopes single-system, family
and broad: the rule by which sweeps choose (`retemper.sweep.front`). Scores are a sum of what system, size, foundation,
E0s, settings and strategy contribute, fitted by least squares, so that designs with gaps can be used; runs of sizes
near the one that is asked about weigh more. Differences of contributions are logarithms of error ratios.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retemper.study.spec import OWN
from retemper.study.table import axes_of, finished, read
from retemper.sweep.front import WEIGHT

if TYPE_CHECKING:
    import pandas as pd

REACH = math.log(4.0)  # standard deviation of the weight in the logarithm of the size: a factor of four


@dataclass(frozen=True)
class Ranking:
    """Levels of an axis from the best to the worst, with how much worse each is than the best (logarithm)."""

    levels: tuple[str, ...]
    worse: tuple[float, ...]
    runs: int
    systems: int

    @property
    def best(self) -> str:
        return self.levels[0]

    def behind(self, level: str) -> float | None:
        """How much worse a level is than the best; `None` for one that was not run."""
        return self.worse[self.levels.index(level)] if level in self.levels else None


def tables(root: Path) -> pd.DataFrame | None:
    """The rows of all studies below ``studies/``, each run once; `None` where there is none."""
    import pandas as pd

    found = [read(path).assign(study=path.parent.name) for path in sorted(root.glob("studies/*/table.csv"))]
    if not found:
        return None
    every = pd.concat(found, ignore_index=True)
    for axis in [name for name in axes_of(every) if "." in name]:
        every[axis] = every[axis].where(every[axis].notna(), OWN)  # an axis that the run's study did not have
    return every.drop_duplicates("run").reset_index(drop=True)


def scored(table: pd.DataFrame, scope: str) -> pd.DataFrame:
    """Finished rows with their ``score``; rows without what the scope needs are left out."""
    rows = finished(table)
    weight = WEIGHT[scope]
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.log(rows["target_force_rmse"].to_numpy(float))
        if weight:
            score = score + weight * np.log(rows["retention_force_rmse"].to_numpy(float))
    found: pd.DataFrame = rows.assign(score=score).loc[np.isfinite(score)]
    return found


def contributions(rows: pd.DataFrame, axis: str, size: float | None) -> dict[str, float]:
    """What each level of `axis` contributes to the score; levels that gaps leave open are left out.

    `rows` are those of `scored`. With `size`, runs of other sizes weigh less.
    """
    varied = [name for name in axes_of(rows) if name != "seed" and rows[name].nunique() > 1]
    if axis not in varied:
        return {str(level): 0.0 for level in rows[axis].unique()}
    levels = sorted(rows[axis].unique())
    columns = [(rows[axis] == level).to_numpy(float) for level in levels]
    for name in varied:
        if name != axis:
            columns += [(rows[name] == level).to_numpy(float) for level in sorted(rows[name].unique())[1:]]
    weights = np.ones(len(rows))
    if size is not None:
        weights = np.exp(-0.25 * (np.log(rows["train"].to_numpy(float) / size) / REACH) ** 2)
    design = np.stack(columns, axis=1) * weights[:, None]
    fitted = np.linalg.lstsq(design, rows["score"].to_numpy(float) * weights, rcond=None)[0]
    _, singular, vectors = np.linalg.svd(design, full_matrices=True)
    null = vectors[int((singular > 1e-9 * singular[0]).sum()) :]
    reference = max(range(len(levels)), key=lambda k: float(columns[k].sum()))
    settled = np.abs(null[:, : len(levels)] - null[:, [reference]]).max(axis=0, initial=0.0) < 1e-6
    return {level: float(fitted[k] - fitted[reference]) for k, level in enumerate(levels) if settled[k]}


def ranking(table: pd.DataFrame, axis: str, scope: str, size: float | None = None, own: bool = True) -> Ranking | None:
    """Levels of `axis` by score; `None` without runs. With `own`, only runs at the strategies' own settings."""
    rows = scored(table, scope)
    if own:
        dotted = [name for name in axes_of(rows) if "." in name and name != axis]
        rows = rows[(rows[dotted] == OWN).all(axis=1)]
    if rows.empty or axis not in rows:
        return None
    found = contributions(rows, axis, size)
    if not found:
        return None
    order = sorted(found, key=lambda level: (found[level], level))
    least = found[order[0]]
    return Ranking(tuple(order), tuple(found[k] - least for k in order), len(rows), rows["system"].nunique())


# ------------------------------------------------------------------ is it any good


@dataclass(frozen=True)
class Regret:
    """One system left out: what was chosen without it, and how much worse than the best strategy each rule does."""

    system: str
    size: float
    chosen: str
    best: str
    regret: dict[str, float]  # "advice", "naive", "replay": logarithm of a score ratio, 0 is the best


def left_out(table: pd.DataFrame, scope: str) -> list[Regret]:
    """Leave one system out: choose a strategy for it from the others' runs, at each size that was run.

    The best is the best of the means over that system's own runs, so that all regrets are a little too large.
    """
    found = []
    systems = sorted(set(finished(table)["system"]))
    for system in systems if len(systems) > 1 else []:
        is_own = table["system"].map(str) == system
        rows = scored(table[is_own], scope)
        for size in sorted(rows["train"].unique()):
            choice = ranking(table[~is_own], "strategy", scope, float(size))
            truth = ranking(table[is_own & (table["train"] == size)], "strategy", scope)
            if choice is None or truth is None or len(truth.levels) < 2:
                continue
            chosen = next((level for level in choice.levels if level in truth.levels), None)
            replay = next((level for level in ("replay", "pseudolabel-replay") if level in truth.levels), None)
            picks = {"advice": chosen, "naive": "naive", "replay": replay}
            regret = {rule: value for rule, pick in picks.items() if pick and (value := truth.behind(pick)) is not None}
            if chosen is not None:
                found.append(Regret(system, float(size), chosen, truth.best, regret))
    return found


def mean_regret(found: Sequence[Regret]) -> dict[str, float]:
    """By rule: mean over systems of their mean over sizes."""
    means: dict[str, list[float]] = {}
    for system in sorted({one.system for one in found}):
        own = [one for one in found if one.system == system]
        for rule in ("advice", "naive", "replay"):
            values = [one.regret[rule] for one in own if rule in one.regret]
            if values:
                means.setdefault(rule, []).append(float(np.mean(values)))
    return {rule: float(np.mean(values)) for rule, values in means.items()}


def percent(logarithm: float) -> str:
    """A difference of scores as a percentage."""
    return f"{100 * (math.exp(logarithm) - 1):.0f} %"
