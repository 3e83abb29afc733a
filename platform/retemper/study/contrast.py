"""Effects from pairs of runs that differ in one axis alone, with intervals over systems or seeds.

Everything else being equal is taken at its word: two runs are a pair when all their other levels are the same. The
mean runs over the settings of a system first and over systems then, so that a system with many runs counts as one.

With three systems or more the interval is that of the mean of their effects (Student's t): what to expect on another
system of this kind. With fewer it is over seeds, with the variance pooled over settings: it then speaks of these
systems only. Nothing is said without a repetition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from retemper.study.table import VALUE, axes_of, finished, text

if TYPE_CHECKING:
    import pandas as pd

SYSTEMS = 3  # from this number on, systems are the repetition
Scale = Literal["log", "points"]


@dataclass(frozen=True)
class Estimate:
    """A mean effect with its interval: logarithm of a ratio, or percentage points."""

    effect: float
    low: float
    high: float
    scale: Scale
    pairs: int
    systems: int
    over: Literal["systems", "seeds"]  # what the interval is over
    agree: int  # systems whose own effect has the sign of the mean

    def words(self) -> str:
        """Effect and interval as people read them: a ratio, or points."""
        shown = [np.exp(v) if self.scale == "log" else v for v in (self.effect, self.low, self.high)]
        unit = "times" if self.scale == "log" else "points"
        sign = "" if self.scale == "log" else "+"
        shown = [round(value, 9) for value in shown]  # sums of shares leave 1e-15 for zero
        return f"{shown[0]:{sign}.3g} [{shown[1]:{sign}.3g}, {shown[2]:{sign}.3g}] {unit}"


def pairs(table: pd.DataFrame, axis: str, one: str, other: str, where: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Pairs of finished runs: `axis` at level `one` in the columns ending in _one, at `other` in those in _other.

    `where` fixes levels of axes. Levels are compared as text.
    """
    rows = finished(table)
    for name, level in (where or {}).items():
        rows = rows[rows[name] == level] if name in rows else rows[:0]
    keys = [name for name in axes_of(table) if name != axis]
    sides = [rows[rows[axis] == level].drop(columns=axis).drop_duplicates(keys) for level in (one, other)]
    return sides[0].merge(sides[1], on=keys, suffixes=("_one", "_other"))


def by_value(table: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The table with a dotted axis at what it is in each run, however the level was written; doubles left out."""
    if axis not in table or VALUE + axis not in table:
        return table[:0]
    found = table.copy()
    found[axis] = found[VALUE + axis].map(text)
    return found.drop_duplicates([*axes_of(found), "state"])


def effects(found: pd.DataFrame, metric: str, scale: Scale) -> pd.DataFrame:
    """The effect of each pair: log(other / one), or other minus one; columns system, setting, effect, counting, floor.

    For shares in % with their number in ``<metric>_n``, ``counting`` is the variance of a difference of two shares of
    different objects, and ``floor`` the least that it can be for two shares of the same ones, where no more of them
    differ than the difference needs (McNemar, Psychometrika 12, 153, 1947), and one. Both are 0 elsewhere.
    """
    import pandas as pd

    if f"{metric}_one" not in found:
        return pd.DataFrame({"system": [], "setting": [], "effect": [], "counting": [], "floor": []})
    one, other = (found[f"{metric}_{side}"].astype(float) for side in ("one", "other"))
    if scale == "log":
        with np.errstate(divide="ignore", invalid="ignore"):
            effect = np.log((other / one).to_numpy())
    else:
        effect = (other - one).to_numpy()
    counting, floor = np.zeros(len(found)), np.zeros(len(found))
    for side, value in (("one", one), ("other", other)):
        if scale == "points" and f"{metric}_n_{side}" in found:
            n = found[f"{metric}_n_{side}"].to_numpy(float)
            share = (value.to_numpy() / 100 * n + 1) / (n + 2)  # never 0 or 1: Agresti, Coull, Am. Stat. 52, 119 (1998)
            counting = counting + 1e4 * share * (1 - share) / n
            fraction = np.abs(effect) / 100
            floor = 1e4 * (fraction * (1 - fraction) / n + 1 / n**2)
    rest = [name for name in axes_of(found) if name not in ("system", "seed")]
    setting = [" ".join(map(str, levels)) for levels in found[rest].to_numpy()]
    columns = {"system": found["system"], "setting": setting, "effect": effect, "counting": counting, "floor": floor}
    return pd.DataFrame(columns).loc[np.isfinite(effect) & np.isfinite(counting)]


def estimate(found: pd.DataFrame, metric: str, scale: Scale = "log", confidence: float = 0.95) -> Estimate | None:
    """Mean effect of `pairs` on a metric; `None` where nothing is repeated."""
    frame = effects(found, metric, scale)
    if frame.empty:
        return None
    settings = frame.groupby(["system", "setting"])["effect"].agg(["mean", "count"])
    systems = settings["mean"].groupby("system").mean()
    mean, number = float(systems.mean()), len(systems)
    counted = frame.groupby("system")[["counting", "floor"]].mean().sum() / number**2
    if number >= SYSTEMS:
        variance, freedom = float(systems.var(ddof=1)) / number, number - 1
        variance = max(variance, float(counted["floor"]))  # the spread over systems has the counting in it
    else:
        freedom = int((settings["count"] - 1).sum())
        if freedom < 1:
            return None
        own = frame.join(settings["mean"], on=["system", "setting"])
        pooled = float(((own["effect"] - own["mean"]) ** 2).sum()) / freedom
        each = (1 / settings["count"]).groupby("system").sum() / settings.groupby("system").size() ** 2
        variance = pooled * float(each.sum()) / number**2 + float(counted["counting"])
    reach = _quantile(confidence, freedom) * float(np.sqrt(variance))
    agree = int((np.sign(systems) == np.sign(mean)).sum())
    over: Literal["systems", "seeds"] = "systems" if number >= SYSTEMS else "seeds"
    return Estimate(mean, mean - reach, mean + reach, scale, len(frame), number, over, agree)


def _quantile(confidence: float, freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + confidence / 2, freedom))
