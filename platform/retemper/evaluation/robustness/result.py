"""What a metric says of itself, and its result for one model, with tables, plots and failing structures."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from retemper.core.files import atomic_write
from retemper.data.frames import write_frames
from retemper.evaluation.robustness import units
from retemper.evaluation.robustness.statistics import score
from retemper.evaluation.robustness.units import Unit
from retemper.records.robustness import ModelMeasure, ModelRobustness

METRICS = "metrics.json"


@dataclass(frozen=True)
class Info:
    """A metric in words: `retemper metrics` and the documentation show it."""

    title: str
    unit: str  # "" for a pure number
    direction: Literal["lower", "higher"]  # which is better
    good: float  # score 1
    bad: float  # score 0
    cost: str  # what it spends its time on
    reference: str  # where the definition comes from


@dataclass(frozen=True)
class Result:
    """Result of one metric for one model."""

    value: float | None  # None: not measured, and `reason` says why
    low: float | None = None  # 95 % interval
    high: float | None = None
    n: int = 0  # what was counted: structures, replicas, pairs
    groups: int = 0  # how many of these are independent: the interval is over them
    grouped_by: str = ""  # what such a group is, in the plural
    details: Mapping[str, object] = field(default_factory=dict)  # for people: numbers, text, arrays, lists, dicts
    reason: str | None = None
    against: str | None = None  # where its reference is at another level of theory than the data
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=dict)  # columns, rows
    failed: list[Atoms] = field(default_factory=list)  # structures to look at; info says what failed
    plots: dict[str, tuple[str, str, str, str]] = field(default_factory=dict)  # table: x, y, lines by, style
    units: Sequence[Unit] = ()  # what two models are compared by, where the metric counts units

    def measure(self, info: Info, identity: dict[str, str]) -> ModelMeasure:
        """As it is written: with unit, score, what a perfect score would show, and what decides it (`identity`)."""
        value, low, high = _finite(self.value), _finite(self.low), _finite(self.high)
        bounded = low is not None and high is not None
        return ModelMeasure(
            value=value,
            low=low if bounded else None,
            high=high if bounded else None,
            unit=info.unit,
            score=None if value is None else score(value, info.good, info.bad),
            n=self.n,
            groups=self.groups,
            grouped_by=self.grouped_by,
            can_show=units.can_show(self.units, info.direction) if units.is_share(self.units) else None,
            reason=self.reason,
            against=self.against,
            details={str(key): plain(part) for key, part in self.details.items()},
            identity=identity,
        )


def not_measured(reason: str, **details: object) -> Result:
    """A metric that does not apply or could not be measured, and why."""
    return Result(None, reason=reason, details=details)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def plain(value: Any) -> Any:
    """`value` as JSON has it: NumPy numbers as Python's, not finite as None, keys as text."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return _finite(value)
    return value


def write(folder: Path, robustness: ModelRobustness, results: Mapping[str, Result]) -> None:
    """Write metrics.json, one CSV file a table, the units and the failing structures below `folder`."""
    units.write(folder / units.UNITS, {name: result.units for name, result in results.items()})
    for name, result in results.items():
        for table, (columns, rows) in result.tables.items():
            with atomic_write(folder / f"{name}-{table}.csv") as temporary, temporary.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows([_cell(value) for value in row] for row in rows)
        if result.failed:
            write_frames(folder / "failed" / f"{name}.extxyz", result.failed)
    robustness.write(folder / METRICS)


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
