"""What a metric measured on each unit (structure, curve, replica), and two models compared unit by unit.

A metric of units is (sum of values / sum of weights) ** power over them. Units of one group are alike (all
relaxations of one composition), so what could have come out otherwise is the choice of groups.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.evaluation.robustness import statistics
from retemper.evaluation.statistics import FEWEST_GROUPS, Interval, group_sums, jackknife

UNITS = "units.csv"
COLUMNS = ("metric", "group", "unit", "value", "weight", "power")
SHARE = 100.0  # a unit of a share has the value 0 or this


@dataclass(frozen=True)
class Unit:
    """One structure, curve, replica or frame."""

    group: str
    name: str  # of the same unit for every model
    value: float
    weight: float = 1.0
    power: float = 1.0  # the same for all units of a metric


def share_over_groups(units: Sequence[Unit]) -> tuple[float, float, float, int]:
    """A share (%) with its interval over groups, and the number of groups."""
    value, low, high = statistics.share([unit.value > 0 for unit in units], [unit.group for unit in units])
    return 100 * value, 100 * low, 100 * high, len({unit.group for unit in units})


def can_show(units: Sequence[Unit], better: str) -> float:
    """The bound (%) that a perfect score on these units would show: no less (better "higher"), or no more."""
    _, low, _ = statistics.share(np.ones(len(units), dtype=bool), [unit.group for unit in units])
    return 100 * low if better == "higher" else 100 * (1 - low)


def paired_difference(model: Sequence[Unit], reference: Sequence[Unit], confidence: float = 0.975) -> Interval:
    """The metric of `model` minus that of `reference` on the units that both have, over groups.

    Where units of a share changed sides in fewer than `FEWEST_GROUPS` groups a jackknife has nothing to go by, and the
    interval is no narrower than that of the units that changed (`_difference_of_changed`): few groups without a
    difference do not show that there never is one.

    Parameters
    ----------
    confidence
        Of each bound.

    Raises
    ------
    RetemperError
        No unit in common.
    """
    first, second = ({(unit.group, unit.name): unit for unit in side} for side in (model, reference))
    keys = [key for key in first if key in second]
    if not keys:
        raise RetemperError("Two models have no structure in common.", fix="measure both with the same settings")
    groups, power = [group for group, _ in keys], model[0].power
    table = np.array([[side[key].value for side in (first, second)] + [first[key].weight] for key in keys])

    def difference(total: np.ndarray) -> np.ndarray:
        return np.asarray((total[:, 0] / total[:, 2]) ** power - (total[:, 1] / total[:, 2]) ** power)

    interval = jackknife(group_sums(groups, table), difference).interval(confidence)
    changed = {group for group, (a, b, _) in zip(groups, table, strict=True) if a != b}
    if is_share(model) and is_share(reference) and len(changed) < FEWEST_GROUPS:
        low, high = _difference_of_changed(table[:, 0] > 0, table[:, 1] > 0, groups, 2 * confidence - 1)
        return Interval(interval.value, min(interval.low, low), max(interval.high, high), interval.groups)
    return interval


def is_share(units: Sequence[Unit]) -> bool:
    """Whether a metric counts how many of its units meet something."""
    return bool(units) and {unit.value for unit in units} <= {0.0, SHARE} and {unit.weight for unit in units} == {1.0}


def _difference_of_changed(
    model: np.ndarray, reference: np.ndarray, groups: Sequence[str], confidence: float
) -> tuple[float, float]:
    """Bounds (points) of the difference of two shares from the shares of units that only one of the models meets.

    Method of variance estimates recovery (G. Y. Zou and A. Donner, Statist. Med. 27, 1693, 2008).
    """
    (a, a_low, a_high), (b, b_low, b_high) = (
        statistics.share(only, groups, confidence) for only in (model & ~reference, reference & ~model)
    )
    low, high = np.hypot(a - a_low, b_high - b), np.hypot(a_high - a, b - b_low)
    return 100 * (a - b - float(low)), 100 * (a - b + float(high))


def write(path: Path, by_metric: Mapping[str, Sequence[Unit]]) -> None:
    """Write units by metric as a table of `COLUMNS`."""
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for metric, units in by_metric.items():
            for unit in units:
                numbers = (f"{number:.9g}" for number in (unit.value, unit.weight, unit.power))
                writer.writerow([metric, unit.group, unit.name, *numbers])


def read(path: Path) -> dict[str, list[Unit]]:
    """Units by metric from a file that has `COLUMNS`; empty where there is none."""
    from retemper.records.runs import read_table

    by_metric: dict[str, list[Unit]] = {}
    if path.is_file():
        for row in read_table(path):
            unit = Unit(row["group"], row["unit"], *(float(row[key]) for key in COLUMNS[3:]))
            by_metric.setdefault(row["metric"], []).append(unit)
    return by_metric
