"""What a metric says of itself and what it found; both are plain data for JSON, DVC and MLflow."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ase import Atoms

from retemper.core.files import atomic_write, write_json
from retemper.data.frames import write_frames
from retemper.evaluation.robustness import units
from retemper.evaluation.robustness.statistics import score
from retemper.evaluation.robustness.units import Unit


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
class Found:
    """Result of one metric for one model."""

    value: float | None  # None: not measured, and `reason` says why
    low: float | None = None  # 95 % interval
    high: float | None = None
    n: int = 0  # what was counted: structures, replicas, pairs
    groups: int = 0  # how many of these are independent: the interval is over them
    grouped_by: str = ""  # what such a group is, in the plural
    details: dict[str, Any] = field(default_factory=dict)  # plain data
    reason: str | None = None
    against: str | None = None  # where its reference is at another level of theory than the data
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=dict)  # columns, rows
    failed: list[Atoms] = field(default_factory=list)  # structures to look at; info says what failed
    plots: dict[str, tuple[str, str, str, str]] = field(default_factory=dict)  # table: x, y, lines by, style
    units: Sequence[Unit] = ()  # what two models are compared by, where the metric counts units

    def as_dict(self, info: Info) -> dict[str, Any]:
        """Plain data: value, interval, unit, score, n, groups, what a perfect score would show, reason, details."""
        measured = self.value is not None and math.isfinite(self.value)
        bounded = None not in (_finite(self.low), _finite(self.high))
        return {
            "value": self.value if measured else None,
            "low": self.low if bounded else None,
            "high": self.high if bounded else None,
            "unit": info.unit,
            "score": score(self.value, info.good, info.bad) if measured and self.value is not None else None,
            "n": self.n,
            "groups": self.groups,
            "grouped_by": self.grouped_by,
            "can_show": units.can_show(self.units, info.direction) if units.is_share(self.units) else None,
            "reason": self.reason,
            "against": self.against,
            "details": plain(self.details),
        }


def not_measured(reason: str, **details: Any) -> Found:
    """A metric that does not apply or could not be measured, and why."""
    return Found(None, reason=reason, details=details)


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


def write(
    folder: Path, results: dict[str, tuple[Info, Found]], about: dict[str, Any], identity: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """Write metrics.json, one CSV file a table, the units and the failing structures below `folder`.

    `identity` says by metric what decides it beside the model. Returns metrics.json.
    """
    measured = {n: {**found.as_dict(info), "identity": identity.get(n, {})} for n, (info, found) in results.items()}
    content = {**about, "metrics": measured}
    units.write(folder / units.UNITS, {name: found.units for name, (_, found) in results.items()})
    for name, (_, found) in results.items():
        for table, (columns, rows) in found.tables.items():
            with atomic_write(folder / f"{name}-{table}.csv") as temporary, temporary.open("w", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows([_cell(value) for value in row] for row in rows)
        if found.failed:
            write_frames(folder / "failed" / f"{name}.extxyz", found.failed)
    write_json(folder / "metrics.json", content)
    return content


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
