"""``measures.json``, kept with a registered version: numbers with intervals, and what they were measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from retemper.core.files import read_json
from retemper.records.record import Record


@dataclass(frozen=True)
class Number:
    """A metric's value, its two-sided interval where there is one, and its unit; without a value the reason."""

    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    reason: str | None = None
    level: float = 0.95  # of the interval
    groups: int | None = None  # independent units that the interval rests on

    def text(self) -> str:
        """Value and interval; the level is said where it is not 95 %."""
        if self.value is None:
            return "–"
        level = "" if self.level == 0.95 else f" ({100 * self.level:g} %)"
        groups = "" if self.groups is None else f", {self.groups} groups"
        known = self.low is not None and self.high is not None
        interval = f" [{self.low:.4g}, {self.high:.4g}]{level}{groups}" if known else ""
        return f"{self.value:.4g}{interval}"


class Measures(Record):
    """The numbers of one model; errors by frame and units lie beside them in tables."""

    STAGE: ClassVar[str] = "register"

    strategy: str
    seed: int
    sha256: str  # of the weights
    identity: dict[str, str]  # of the sets it was measured on, and how robustness was
    numbers: dict[str, Number]  # by metric

    @classmethod
    def of_version(cls, path: Path) -> Self:
        """Read a version's file; versions are for good, and the first ones were kept without a form."""
        content = read_json(path)
        return cls.of({"form": cls.FORM, **content} if isinstance(content, dict) else content, path)
