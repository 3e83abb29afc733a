"""What was measured on one registered model: numbers with intervals, and errors of every frame.

Read from ``runs/`` for the models of this run, and from the files kept with a version for
the champion. No MLflow here.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retemper.config import metric_names
from retemper.core.errors import RetemperError
from retemper.core.files import read_json, write_json
from retemper.evaluation.robustness import units
from retemper.evaluation.robustness.units import Unit
from retemper.records.runs import FORGETTING, FOUNDATION, QUANTITIES, Results, finite, read_table
from retemper.records.trained_model import TrainedModel

MEASURES, FRAMES = "measures.json", "frames.csv"


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


@dataclass(frozen=True)
class Errors:
    """Errors of one model on the frames of one set."""

    energy: np.ndarray  # [n] meV/atom, signed
    force_sq: np.ndarray  # [n] (meV/A)^2, summed over the components of a frame
    n_atoms: np.ndarray  # [n]
    group: list[str]  # [n] trajectory or molecule

    @classmethod
    def of(cls, energy: list[float], force_sq: list[float], n_atoms: list[int], group: list[str]) -> Errors:
        """From lists."""
        return cls(np.array(energy), np.array(force_sq), np.array(n_atoms), group)


@dataclass(frozen=True)
class Measured:
    """One model: one seed of one strategy, or the foundation (strategy "foundation", seed 0)."""

    strategy: str
    seed: int
    sha256: str
    identity: dict[str, str]  # of the sets it was measured on (see `evaluate.identity`), and how robustness was
    numbers: dict[str, Number]
    frames: dict[int, dict[str, Errors]]  # seeds of its strategy -> set -> errors
    units: dict[str, list[Unit]] = field(default_factory=dict)  # robustness metric -> structures, curves, replicas

    @property
    def name(self) -> str:
        return self.strategy if self.strategy == FOUNDATION else f"{self.strategy}, seed {self.seed}"

    @property
    def model(self) -> TrainedModel:
        return TrainedModel(self.sha256, self.strategy, self.seed)

    def number(self, metric: str) -> Number:
        """A metric; one that is not there has no value."""
        setting = " (robustness.metrics)" if metric.startswith("robustness.") else ""
        return self.numbers.get(metric, Number(None, reason=f"not measured{setting}"))

    def own(self, part: str) -> Errors | None:
        """This model's errors on a set."""
        return self.frames.get(self.seed, {}).get(part)

    def recipe(self, part: str) -> list[Errors]:
        """Errors on a set of all seeds of the strategy."""
        return [sets[part] for _, sets in sorted(self.frames.items()) if part in sets]


def collect(results: Results, strategy: str, seed: int) -> Measured:
    """Everything that ``runs/`` says of one model.

    Raises
    ------
    RetemperError
        The evaluation has not run, or its files are broken.
    """
    evaluation = results.evaluations.get(strategy)
    if evaluation is None or str(seed) not in evaluation["seeds"]:
        stage = strategy if strategy == FOUNDATION else f"evaluate@{strategy}"
        raise RetemperError(f"{strategy}, seed {seed} has not been evaluated.", fix=f"dvc repro -f {stage}")
    identity = evaluation.get("identity", {})
    if strategy == FOUNDATION:
        weights = str(identity.get("foundation_sha256", ""))
    else:
        weights = results.trainings[strategy][seed].finished.sha256
    numbers = from_reports(evaluation["seeds"][str(seed)], results.settings.evaluate.confidence)
    robust = results.robustness.get(strategy, {}).get("seeds", {})
    numbers |= robustness(robust, seed)
    if str(seed) in robust:
        identity = {**identity, **robustness_identity(robust[str(seed)])}
    frames = read_frames_csv(results.root / "runs/evaluate" / strategy / FRAMES)
    structures = units.read(results.root / "runs/robustness" / strategy / f"seed-{seed}" / units.UNITS)
    return Measured(strategy, seed, weights, identity, numbers, frames, structures)


def from_reports(parts: Mapping[str, Any], level: float) -> dict[str, Number]:
    """``<set>.<quantity>`` from the sets of one seed, as ``metrics.json`` has them; `level` is of their intervals."""
    numbers: dict[str, Number] = {}

    def take(name: str, report: Mapping[str, Any], quantity: str, unit: str) -> None:
        if isinstance(found := report.get(quantity), dict):
            bounds = found.get("low"), found.get("high")
            numbers[name] = Number(found["value"], *bounds, unit, level=level, groups=report.get("n_groups"))

    for part, report in parts.items():
        for quantity in QUANTITIES:
            take(f"{part}.{quantity}", report, quantity, metric_names.ERRORS[quantity].unit)
        if part in FORGETTING:
            take(FORGETTING[part], report, "forgetting_ratio", "")
    return numbers


def robustness(seeds: Mapping[str, Any], seed: int) -> dict[str, Number]:
    """``robustness.<metric>`` of one seed from those that the suite measured; the others have a reason and no value."""
    if str(seed) in seeds:
        return {f"robustness.{name}": _number(found) for name, found in seeds[str(seed)]["metrics"].items()}
    names = dict.fromkeys(name for measured in seeds.values() for name in measured["metrics"])
    reason = f"not measured for seed {seed}, only for {', '.join(seeds)} (robustness.seeds)"
    return {f"robustness.{name}": Number(None, reason=reason) for name in names}


def robustness_identity(measured: Mapping[str, Any]) -> dict[str, str]:
    """What must be equal for two models' robustness to be compared, flat: ``robustness.rss.level`` and so on."""
    return {
        f"robustness.{name}.{part}": value
        for name, found in measured["metrics"].items()
        for part, value in found.get("identity", {}).items()
    }


def _number(found: Mapping[str, Any]) -> Number:
    """A metric of the robustness suite: value, low, high, unit, reason, groups."""
    value, low, high = (finite(found[key]) for key in ("value", "low", "high"))
    return Number(value, low, high, found["unit"], found["reason"], groups=found.get("groups") or None)


def read_frames_csv(path: Path) -> dict[int, dict[str, Errors]]:
    """``frames.csv`` of an evaluation as errors by seed and set, frames in their order; empty where there is none."""
    if not path.is_file():
        return {}
    rows: dict[tuple[int, str], list[tuple[int, float, float, int, str]]] = defaultdict(list)
    try:
        for row in read_table(path):
            force_sq = float(row["force_rmse"]) ** 2 * 3 * int(row["n_atoms"])
            number = int(row["frame"])
            group = row.get("group", "")  # files of earlier versions have none: one group, which shows nothing
            errors = (number, float(row["energy_error"]), force_sq, int(row["n_atoms"]), group)
            rows[int(row["seed"]), row["set"]].append(errors)
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise RetemperError(
            f"{path} is broken: {error!r}.",
            expected="columns seed, set, frame, n_atoms, energy_error, force_rmse with numbers",
            fix="delete its folder and `dvc repro`",
        ) from error
    frames: dict[int, dict[str, Errors]] = defaultdict(dict)
    for (seed, part), found in rows.items():
        _, *columns = zip(*sorted(found), strict=True)
        frames[seed][part] = Errors.of(*(list(column) for column in columns))
    return dict(frames)


# ------------------------------------------------------------------ kept with a version


def save(measured: Measured, frames_csv: Path | None, folder: Path) -> None:
    """Write ``measures.json`` and a copy of ``frames.csv`` into `folder`."""
    content = {key: value for key, value in asdict(measured).items() if key not in ("frames", "units")}
    write_json(folder / MEASURES, content)
    units.write(folder / units.UNITS, measured.units)
    if frames_csv is not None and frames_csv.is_file():
        (folder / FRAMES).write_bytes(frames_csv.read_bytes())


def read(folder: Path) -> Measured:
    """What `save` wrote."""
    content: dict[str, Any] = read_json(folder / MEASURES)
    numbers = {name: Number(**number) for name, number in content.pop("numbers").items()}
    return Measured(
        **content, numbers=numbers, frames=read_frames_csv(folder / FRAMES), units=units.read(folder / units.UNITS)
    )
