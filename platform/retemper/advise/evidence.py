"""What finished studies say of strategies with their settings, and of foundations, for a scope.

A run's score is log(target forces) + lambda log(retention forces), lambda 0, 1, 4 for the scopes single-system, family
and broad: the rule by which sweeps choose (`retemper.sweep.choice`). A *way* is a strategy with the settings that its
runs have varied. Ways are compared within blocks alone: runs of one study on one system with the same foundation, E0s,
size and settings of params.yaml. Blocks without a second way say nothing; those of sizes near the one that is asked
about weigh more. Which way is best depends on foundation and E0s (with wrong E0s replay saves what naive fine-tuning
loses), so `runs_like` keeps the runs that have those in question. Where no run has a retention set with labels, the
drift from the foundation's forces stands for retention. Differences are logarithms of error ratios, means over seeds
fitted by least squares; standard errors come from leaving out each system in turn, since systems are what is
independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retemper.config.settings import WEIGHT
from retemper.config.strategies import Value
from retemper.study.spec import OWN, PARAMS
from retemper.study.table import FINISHED, NULL, VALUE, axes_of, finished_rows, read

if TYPE_CHECKING:
    import pandas as pd

REACH = math.log(4.0)  # standard deviation of the weight in the logarithm of the size: a factor of four
CLOSE = math.log(1.05)  # within 5 % of each other in score: as good as each other
# Without runs, and among equals: arXiv:2606.12704, abstract. Replay with pseudolabels needs no labels of the pool.
PAPER = {"single-system": "naive", "family": "pseudolabel-replay", "broad": "pseudolabel-replay"}
WAY, BLOCK = "way", "block"
SYSTEMS = 3  # from this number on, errors are those over systems


@dataclass(frozen=True)
class Ranking:
    """Levels of an axis, the one to take first: the smallest mean plus standard error.

    Of few or contradicting runs a mean is small by luck, and its error is large.
    """

    levels: tuple[str, ...]
    worse: tuple[float, ...]  # than the level of the smallest mean, logarithm
    errors: tuple[float, ...]  # standard errors of the difference to the mean of all levels
    runs: int
    systems: int

    def behind(self, level: str) -> float | None:
        """How much worse a level's mean is than the best one; `None` for one that was not run."""
        return self.worse[self.levels.index(level)] if level in self.levels else None

    def choose(self, scope: str) -> str:
        """The first, or what the paper names for the scope where that is as good."""
        first, paper = self.levels[0], self.behind(PAPER[scope])
        return PAPER[scope] if paper is not None and paper - self.worse[0] <= CLOSE else first

    def among(self, levels: Sequence[str]) -> Ranking:
        """The same of some levels alone."""
        indices = [k for k, level in enumerate(self.levels) if level in levels]
        worse, errors = (tuple(values[k] for k in indices) for values in (self.worse, self.errors))
        return Ranking(tuple(self.levels[k] for k in indices), worse, errors, self.runs, self.systems)


def tables(root: Path) -> pd.DataFrame | None:
    """The rows of all studies below ``studies/``, with the column ``study``; `None` where there is none."""
    import pandas as pd

    frames = [read(path).assign(study=path.parent.name) for path in sorted(root.glob("studies/*/table.csv"))]
    return pd.concat(frames, ignore_index=True) if frames else None


def score_runs(table: pd.DataFrame, scope: str) -> pd.DataFrame:
    """Finished rows with ``score``, ``way`` and ``block``; rows without what the scope needs are left out."""
    rows, settings = finished_rows(table), _settings(table)
    errors = ["target_force_rmse", *([kept_column(rows)] if WEIGHT[scope] else [])]
    if rows.empty or any(name not in rows for name in errors):
        return rows[:0].assign(way="", block="", score=math.nan)
    for axis in settings:
        rows[axis] = rows[axis].where(rows[axis] != "nan", OWN)  # an axis that the run's study did not have
    varied = [
        [f"{axis} {level}" for axis, level in zip(settings, entry, strict=True) if level != OWN]
        for entry in rows[settings].to_numpy()
    ]
    rows[WAY] = [", ".join([strategy, *entry]) for strategy, entry in zip(rows["strategy"], varied, strict=True)]
    axes = [name for name in axes_of(rows) if name not in ("strategy", "seed", "size", *settings)]
    rows[BLOCK] = [" ".join(map(str, levels)) for levels in rows[["study", *axes, "train"]].to_numpy()]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [np.log(rows[name].to_numpy(float)) for name in errors]
    score = logs[0] + (WEIGHT[scope] * logs[1] if WEIGHT[scope] else 0.0)
    finite: pd.DataFrame = rows.assign(score=score).loc[np.isfinite(score)]
    return finite


def kept_column(rows: pd.DataFrame) -> str:
    """Error on the retention set, or where no run has one, the drift from the foundation. The two are never mixed."""
    retention, drift = "retention_force_rmse", "drift_force_rmse"
    has_retention = retention in rows and bool(rows[retention].notna().any())
    return drift if drift in rows and not has_retention else retention


def runs_like(table: pd.DataFrame, **levels: str) -> pd.DataFrame:
    """The runs with these levels of axes; an axis that no finished run has at its level is left as it is."""
    for axis, level in levels.items():
        mask = table[axis].map(str) == level
        if mask[table["state"] == FINISHED].any():
            table = table[mask]
    return table


def usual_levels(table: pd.DataFrame) -> dict[str, str]:
    """The foundation and the E0s that most finished runs have."""
    rows = finished_rows(table)
    return {axis: str(rows[axis].mode()[0]) for axis in ("foundation", "e0s") if len(rows)}


def _settings(table: pd.DataFrame) -> list[str]:
    """Axes that are settings of strategies."""
    return [name for name in axes_of(table) if "." in name and not name.startswith(PARAMS)]


def settings_of(table: pd.DataFrame, way: str) -> tuple[str, dict[str, Value]]:
    """Strategy of a way, and its settings by dotted path, as they are in its runs."""
    rows = score_runs(table, "single-system")
    row = rows[rows[WAY] == way].iloc[0]
    return str(row["strategy"]), {
        axis: None if row[axis] == NULL else row[VALUE + axis] for axis in _settings(rows) if row[axis] != OWN
    }


def contributions(
    rows: pd.DataFrame, axis: str, beside: Sequence[str], size: float | None
) -> dict[str, tuple[float, float]]:
    """What each level of `axis` adds to the score beside what the levels of `beside` do, and its standard error.

    Both are differences to the mean of all levels that gaps do not leave open; those are left out. `rows` are those of
    `score_runs`; seeds are averaged first. With `size`, runs of other sizes weigh less. Errors are those of leaving out
    each system in turn: sizes and settings of one system are not independent. With fewer than three systems they are
    those of the fit, which takes them as if they were.
    """
    effects, errors = _fit(rows, axis, beside, size)
    systems = sorted(set(rows["system"]))
    if len(systems) < SYSTEMS:
        return {level: (value, errors[level]) for level, value in effects.items()}
    squares: dict[str, list[float]] = {level: [] for level in effects}
    for system in systems:
        effects_without, _ = _fit(rows[rows["system"] != system], axis, beside, size)
        common = [level for level in effects if level in effects_without]
        shift = float(np.mean([effects_without[level] - effects[level] for level in common]))
        for level in common:
            squares[level].append((effects_without[level] - effects[level] - shift) ** 2)
    n = len(systems)
    return {
        level: (value, math.sqrt((n - 1) * float(np.mean(squares[level]))) if squares[level] else errors[level])
        for level, value in effects.items()
    }


def _fit(
    rows: pd.DataFrame, axis: str, beside: Sequence[str], size: float | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Contributions of the levels by weighted least squares, and their standard errors if all cells are independent."""
    cells = rows.groupby([axis, *beside], as_index=False).agg(score=("score", "mean"), train=("train", "mean"))
    levels = sorted(cells[axis].unique())
    columns = [(cells[axis] == level).to_numpy(float) for level in levels]
    for name in beside:
        columns += [(cells[name] == level).to_numpy(float) for level in sorted(cells[name].unique())[1:]]
    weights = np.ones(len(cells))
    if size is not None:
        weights = np.exp(-0.25 * (np.log(cells["train"].to_numpy(float) / size) / REACH) ** 2)
    design = np.stack(columns, axis=1) * weights[:, None]
    aim = cells["score"].to_numpy(float) * weights
    coefficients = np.linalg.lstsq(design, aim, rcond=None)[0]
    _, singular, vectors = np.linalg.svd(design, full_matrices=True)
    rank = int((singular > 1e-9 * singular[0]).sum())
    reference = max(range(len(levels)), key=lambda k: float(columns[k].sum()))
    null = vectors[rank:, : len(levels)]
    settled = np.flatnonzero(np.abs(null - null[:, [reference]]).max(axis=0, initial=0.0) < 1e-6)
    contrasts = np.zeros((len(settled), len(columns)))
    contrasts[:, settled] = np.eye(len(settled)) - 1 / len(settled)
    variance = float(((aim - design @ coefficients) ** 2).sum()) / max(len(cells) - rank, 1)
    errors = np.sqrt(variance) * np.linalg.norm(contrasts @ np.linalg.pinv(design), axis=1)
    names, values = [levels[k] for k in settled], contrasts @ coefficients
    return dict(zip(names, values.tolist(), strict=True)), dict(zip(names, errors.tolist(), strict=True))


def ranking(table: pd.DataFrame, scope: str, size: float | None = None) -> Ranking | None:
    """Ways for a scope; `None` without runs. A way that was compared on one system alone needs to be the only case."""
    rows = score_runs(table, scope)
    if rows.empty:
        return None
    effects = contributions(rows, WAY, [BLOCK], size)
    shared = rows[rows[WAY].isin(list(effects)) & (rows.groupby(BLOCK)[WAY].transform("nunique") > 1)]
    tried = shared.groupby(WAY)["system"].nunique()
    names = [name for name in effects if tried.get(name, 0) >= min(2, shared["system"].nunique())]
    return _as_ranking({name: effects[name] for name in names}, shared) if names else None


def foundations(table: pd.DataFrame, size: float | None = None) -> Ranking | None:
    """Foundations by target forces alone: each has a retention set of its own, and those do not compare."""
    rows = score_runs(table, "single-system")
    if rows.empty:
        return None
    return _as_ranking(contributions(rows, "foundation", ["study", "system", "e0s", "train", WAY], size), rows)


def _as_ranking(effects: dict[str, tuple[float, float]], rows: pd.DataFrame) -> Ranking:
    order = sorted(effects, key=lambda level: (sum(effects[level]), level))
    lowest = min(effect for effect, _ in effects.values())
    worse, errors = (tuple(effects[level][k] - shift for level in order) for k, shift in ((0, lowest), (1, 0.0)))
    return Ranking(tuple(order), worse, errors, rows["run"].nunique(), rows["system"].nunique())


# ------------------------------------------------------------------ is it any good


@dataclass(frozen=True)
class Regret:
    """One system left out: what was chosen without it, and how much worse than the best way each rule does."""

    system: str
    size: float
    chosen: str
    best: str
    regret: dict[
        str, float
    ]  # "advice", "naive", "replay": logarithm of a score ratio, 0 is the best; none without runs


def leave_one_out(table: pd.DataFrame, scope: str) -> list[Regret]:
    """Leave one system out: choose a way for it from the others' runs, for each block of its own.

    Runs with the usual foundation and E0s alone. Where the chosen way was not run there is no regret of any rule. The
    best is the best of the means over seeds there, so that all regrets are a little too large.
    """
    regrets = []
    table = runs_like(table, **usual_levels(table))
    scores = score_runs(table, scope)
    for _, rows in scores.groupby(BLOCK):
        system = str(rows["system"].iloc[0])
        truth = rows.groupby(WAY)["score"].mean()
        size = float(rows["train"].iloc[0])
        other_systems = table[table["system"].map(str) != system]
        ways = ranking(other_systems, scope, size) if len(truth) > 1 and len(other_systems) else None
        if ways is None:
            continue
        way = ways.choose(scope)
        replay = next((level for level in ("replay", "pseudolabel-replay") if level in truth), None)
        picks = {"advice": way, "naive": "naive", "replay": replay} if way in truth else {}
        regret = {rule: float(truth[pick] - truth.min()) for rule, pick in picks.items() if pick and pick in truth}
        regrets.append(Regret(system, size, way, str(truth.idxmin()), regret))
    return regrets


def mean_regret(regrets: Sequence[Regret]) -> dict[str, float]:
    """By rule: mean over systems of their mean over sizes."""
    means: dict[str, list[float]] = {}
    for system in sorted({entry.system for entry in regrets}):
        of_system = [entry for entry in regrets if entry.system == system]
        for rule in ("advice", "naive", "replay"):
            values = [entry.regret[rule] for entry in of_system if rule in entry.regret]
            if values:
                means.setdefault(rule, []).append(float(np.mean(values)))
    return {rule: float(np.mean(values)) for rule, values in means.items()}


def percent(logarithm: float) -> str:
    """A difference of scores as a percentage."""
    return f"{100 * (math.exp(logarithm) - 1):.0f} %"
