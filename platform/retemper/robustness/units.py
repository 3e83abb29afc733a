"""What a metric measured on each unit (structure, curve, replica), and two models compared unit by unit.

A metric that counts units is (sum of values / sum of weights) ** power over them. Units of one group are alike (all
relaxations of one composition), so what could have come out otherwise is the choice of groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retemper.errors import RetemperError
from retemper.robustness import stats

UNITS = "units.csv"
COLUMNS = ("metric", "group", "unit", "value", "weight")
SHARE = 100.0  # a unit of a share has the value 0 or this


@dataclass(frozen=True)
class Unit:
    """One structure, curve, replica or frame."""

    group: str
    name: str  # of the same unit for every model
    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Paired:
    """Difference of two models over the same units, with a two-sided interval."""

    value: float
    low: float
    high: float
    n: int  # units that both have
    groups: int


def counted(units: Sequence[Unit]) -> tuple[float, float, float, int]:
    """A share (%) with its interval over groups, and the number of groups."""
    value, low, high = stats.share([unit.value > 0 for unit in units], [unit.group for unit in units])
    return 100 * value, 100 * low, 100 * high, len({unit.group for unit in units})


def can_show(units: Sequence[Unit], better: str) -> float:
    """The bound (%) that a perfect score on these units would show: no less (better "higher"), or no more."""
    _, low, _ = stats.share(np.ones(len(units), dtype=bool), [unit.group for unit in units])
    return 100 * low if better == "higher" else 100 * (1 - low)


def paired(ours: Sequence[Unit], theirs: Sequence[Unit], power: float = 1.0, confidence: float = 0.95) -> Paired:
    """The metric of `ours` minus that of `theirs` on the units that both have; interval over groups.

    Delete-one-group jackknife with Student's t (B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993,
    ch. 11). For shares the interval is not narrower than that of the units that changed sides (`_changed`): where no
    unit differs, few groups do not show that none ever will.

    Raises
    ------
    RetemperError
        Fewer than two groups in common.
    """
    from scipy import stats as distributions

    first, second = ({(unit.group, unit.name): unit for unit in side} for side in (ours, theirs))
    keys = [key for key in first if key in second]
    groups = np.array([group for group, _ in keys])
    names = list(dict.fromkeys(groups.tolist()))
    if len(names) < 2:
        raise RetemperError(
            "Two models cannot be compared unit by unit.",
            expected="at least two groups of units that both were measured on",
            got=f"{len(keys)} units in {len(names)} group(s)",
            fix="measure both at the same level, of the same structures",
        )
    table = np.array([[u.value for u in (first[key], second[key])] + [first[key].weight, second[key].weight] for key in keys])
    sums = np.array([table[groups == name].sum(axis=0) for name in names])

    def difference(total: np.ndarray) -> np.ndarray:
        return np.asarray((total[..., 0] / total[..., 2]) ** power - (total[..., 1] / total[..., 3]) ** power)

    k = len(names)
    value = float(difference(sums.sum(axis=0)))
    left_out = difference(sums.sum(axis=0) - sums)
    error = float(np.sqrt((k - 1) / k * ((left_out - left_out.mean()) ** 2).sum()))
    half = float(distributions.t.ppf(0.5 + confidence / 2, k - 1)) * error
    low, high = value - half, value + half
    if set(table[:, :2].ravel().tolist()) <= {0.0, SHARE} and (table[:, 2:] == 1).all():
        least, most = _changed(table[:, 0] > 0, table[:, 1] > 0, groups.tolist(), confidence)
        low, high = min(low, least), max(high, most)
    return Paired(value, low, high, len(keys), k)


def _changed(ours: np.ndarray, theirs: np.ndarray, groups: Sequence[str], confidence: float) -> tuple[float, float]:
    """Bounds (points) of the difference of two shares from the shares of units that only one of the models meets.

    Method of variance estimates recovery (G. Y. Zou and A. Donner, Statist. Med. 27, 1693, 2008).
    """
    (a, a_low, a_high), (b, b_low, b_high) = (
        stats.share(only, groups, confidence) for only in (ours & ~theirs, theirs & ~ours)
    )
    low, high = np.hypot(a - a_low, b_high - b), np.hypot(a_high - a, b - b_low)
    return 100 * (a - b - float(low)), 100 * (a - b + float(high))


def rows(units: Mapping[str, Sequence[Unit]]) -> list[tuple[str, str, str, str, str]]:
    """Lines of `UNITS` by metric."""
    return [
        (metric, unit.group, unit.name, f"{unit.value:.9g}", f"{unit.weight:.9g}")
        for metric, found in units.items()
        for unit in found
    ]


def read(path: Path) -> dict[str, list[Unit]]:
    """Units by metric from a file that has `COLUMNS`; empty where there is none."""
    from retemper.results import read_table

    found: dict[str, list[Unit]] = {}
    if path.is_file():
        for row in read_table(path):
            unit = Unit(row["group"], row["unit"], float(row["value"]), float(row["weight"]))
            found.setdefault(row["metric"], []).append(unit)
    return found
