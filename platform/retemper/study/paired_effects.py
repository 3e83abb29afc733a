"""Effects from pairs of runs that differ in one axis alone, with intervals over systems, or over groups and seeds.

Everything else being equal is taken at its word: two runs are a pair when all their other levels are the same. The
mean runs over the settings of a system first and over systems then, so that a system with many runs counts as one.

With three systems or more the interval is that of the mean of their effects (Student's t): what to expect on another
system of this kind; its spread has structures and seeds in it. With fewer it speaks of these systems only, and is over
what else is independent: the groups of their test structures (delete-a-group jackknife of the paired errors; for
shares of curves the counting of the curves) and the seeds, as far as they tell (`statistics.Scatter`; a seed is the
mean over the settings of a system, so that settings whose seeds scatter differently are not pooled). Where the table
has no errors by group the interval is over seeds alone, which are not what is uncertain: it decides nothing. Nothing
is said without a repetition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from retemper.evaluation import statistics
from retemper.study.groups import squares
from retemper.study.table import CELL, VALUE, axes_of, finished_rows, text

if TYPE_CHECKING:
    import pandas as pd

SYSTEMS = 3  # from this number on, systems are the repetition
KNOWN = 1e3  # degrees of freedom of an error that is not estimated
Scale = Literal["log", "points"]


@dataclass(frozen=True)
class Effect:
    """A mean effect with its interval: logarithm of a ratio, or percentage points."""

    effect: float
    low: float
    high: float
    scale: Scale
    pairs: int
    systems: int
    over: str  # what the interval is over, in words
    agree: int  # systems whose own effect has the sign of the mean
    decides: bool = True  # whether the interval is over all that is uncertain, and over enough of it

    def words(self) -> str:
        """Effect and interval as people read them: a ratio, or points."""
        numbers = [np.exp(v) if self.scale == "log" else v for v in (self.effect, self.low, self.high)]
        unit = "times" if self.scale == "log" else "points"
        sign = "" if self.scale == "log" else "+"
        numbers = [round(value, 9) for value in numbers]  # sums of shares leave 1e-15 for zero
        return f"{numbers[0]:{sign}.3g} [{numbers[1]:{sign}.3g}, {numbers[2]:{sign}.3g}] {unit}"


def pairs(table: pd.DataFrame, axis: str, one: str, other: str, fixed: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Pairs of finished runs: `axis` at level `one` in the columns ending in _one, at `other` in those in _other.

    `fixed` fixes levels of axes. Levels are compared as text.
    """
    rows = finished_rows(table)
    for name, level in (fixed or {}).items():
        rows = rows[rows[name] == level] if name in rows else rows[:0]
    keys = [name for name in axes_of(table) if name != axis]
    sides = [rows[rows[axis] == level].drop(columns=axis).drop_duplicates(keys) for level in (one, other)]
    return sides[0].merge(sides[1], on=keys, suffixes=("_one", "_other"))


def by_value(table: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The table with a dotted axis at what it is in each run, however the level was written; doubles left out."""
    if axis not in table or VALUE + axis not in table:
        return table[:0]
    rows = table.copy()
    rows[axis] = rows[VALUE + axis].map(text)
    return rows.drop_duplicates([*axes_of(rows), "state"])


def effects(pair_rows: pd.DataFrame, metric: str, scale: Scale) -> pd.DataFrame:
    """The effect of each pair: log(other / one), or other minus one.

    Columns: system, setting, seed, effect, counting, floor.

    For shares in % with their number in ``<metric>_n``, ``counting`` is the variance of a difference of two shares of
    different objects, and ``floor`` the least that it can be for two shares of the same ones, where no more of them
    differ than the difference needs (McNemar, Psychometrika 12, 153, 1947), and one. Both are 0 elsewhere.
    """
    import pandas as pd

    if f"{metric}_one" not in pair_rows:
        return pd.DataFrame(columns=["system", "setting", "seed", "effect", "counting", "floor"])
    one, other = (pair_rows[f"{metric}_{side}"].astype(float) for side in ("one", "other"))
    if scale == "log":
        with np.errstate(divide="ignore", invalid="ignore"):
            effect = np.log((other / one).to_numpy())
    else:
        effect = (other - one).to_numpy()
    counting, floor = np.zeros(len(pair_rows)), np.zeros(len(pair_rows))
    for side, value in (("one", one), ("other", other)):
        if scale == "points" and f"{metric}_n_{side}" in pair_rows:
            n = pair_rows[f"{metric}_n_{side}"].to_numpy(float)
            share = (value.to_numpy() / 100 * n + 1) / (n + 2)  # never 0 or 1: Agresti, Coull, Am. Stat. 52, 119 (1998)
            counting = counting + 1e4 * share * (1 - share) / n
            fraction = np.abs(effect) / 100
            floor = 1e4 * (fraction * (1 - fraction) / n + 1 / n**2)
    axes = [name for name in axes_of(pair_rows) if name not in ("system", "seed")]
    setting = [" ".join(map(str, levels)) for levels in pair_rows[axes].to_numpy()]
    columns = {"system": pair_rows["system"], "setting": setting, "seed": pair_rows["seed"], "effect": effect}
    columns |= {"counting": counting, "floor": floor}
    return pd.DataFrame(columns).loc[np.isfinite(effect) & np.isfinite(counting)]


def estimate(pair_rows: pd.DataFrame, metric: str, scale: Scale = "log", confidence: float = 0.95) -> Effect | None:
    """Mean effect of `pairs` on a metric; `None` where nothing is repeated."""
    frame = effects(pair_rows, metric, scale)
    if frame.empty:
        return None
    systems = frame.groupby(["system", "setting"])["effect"].mean().groupby("system").mean()
    agree = int((np.sign(systems) == np.sign(systems.mean())).sum())
    one_sided = statistics.two_sided(confidence)
    if len(systems) >= SYSTEMS:
        mean = statistics.mean_difference(list(systems.index), systems.to_numpy())
        floor = float(np.sqrt(frame.groupby("system")["floor"].mean().sum())) / len(systems)
        mean = replace(mean, error=max(mean.error, floor))  # the spread over systems has the counting in it
        bounds, over, decides = mean.interval(one_sided), "systems", True
    else:
        unit = 1.0 if scale == "log" else 100.0
        seeds = {
            str(system): (seed_effects(effect_rows) / unit).tolist() for system, effect_rows in frame.groupby("system")
        }
        scatter = statistics.Scatter(seeds)
        if not scatter.known:
            return None
        parts = [
            structure_error(pair_rows.loc[effect_rows.index], effect_rows, metric, unit)
            for _, effect_rows in frame.groupby("system")
        ]
        total, over = _sum(parts, float(systems.sum()) / unit)
        decides = total.error > 0 and total.groups >= statistics.FEWEST_GROUPS
        bounds = statistics.with_seeds(total, scatter, list(seeds), one_sided)
        share = unit / len(systems)
        bounds = statistics.Interval(share * bounds.value, share * bounds.low, share * bounds.high, bounds.groups)
    return Effect(bounds.value, bounds.low, bounds.high, scale, len(frame), len(systems), over, agree, decides)


def seed_effects(effect_rows: pd.DataFrame) -> np.ndarray:
    """[n_seeds] effect of each seed on one system: mean over those settings that were repeated most."""
    cells = effect_rows.pivot_table(index="setting", columns="seed", values="effect")
    repeated = cells.count(axis=1)
    seeds = cells[repeated == repeated.max()].dropna(axis=1).mean(axis=0).to_numpy(float)
    return seeds if len(seeds) else np.array([float(effect_rows["effect"].mean())])


def structure_error(
    pair_rows: pd.DataFrame, effect_rows: pd.DataFrame, metric: str, unit: float
) -> statistics.Estimate:
    """How well the effect on one system is known from its structures; without error where the table has no groups.

    Parameters
    ----------
    pair_rows, effect_rows
        Rows of `pairs` and of `effects` of one system.
    unit
        What 1 of the estimate is on the scale of `effect_rows`.
    """
    counting = float(effect_rows["counting"].mean())
    if counting > 0:
        curves = int(pair_rows[[f"{metric}_n_one", f"{metric}_n_other"]].to_numpy(float).min())
        return statistics.Estimate(0.0, float(np.sqrt(counting)) / unit, KNOWN, curves)
    names = [f"{metric}{CELL}_{side}" for side in ("other", "one")]
    cells = [[squares(text) for text in pair_rows[name]] if name in pair_rows else [] for name in names]
    entries = [entry for side in cells for entry in side]
    if not entries or any(len(entry) < 2 or not np.array_equal(entry[:, 0], entries[0][:, 0]) for entry in entries):
        return statistics.Estimate(0.0, 0.0, KNOWN, 0)
    numerator, denominator = (np.column_stack([entry[:, 1] for entry in side]) for side in cells)
    return statistics.log_ratio(numerator, denominator, 0.5)


def _sum(parts: Sequence[statistics.Estimate], value: float) -> tuple[statistics.Estimate, str]:
    """The sum of the effects on systems, which is `value`, and what its error is over."""
    if any(part.error == 0 for part in parts):
        return statistics.Estimate(value, 0.0, KNOWN, 2), "seeds alone"
    total = replace(statistics.weighted_sum([(1.0, part) for part in parts]), value=value)
    kind = "curves" if all(part.freedom == KNOWN for part in parts) else "groups of structures"
    return total, f"{total.groups} {kind} and seeds"
