"""What was measured on one registered model: numbers with intervals, and errors of every frame.

Read from ``runs/`` for the models of this run, and from the files kept with a version for
the champion. No MLflow here.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retemper.config import metric_names
from retemper.core.errors import RetemperError
from retemper.evaluation.robustness import units
from retemper.evaluation.robustness.units import Unit
from retemper.records.evaluation import Accuracy
from retemper.records.measures import Measures, Number
from retemper.records.robustness import Robustness
from retemper.records.runs import FOUNDATION, Results, read_table
from retemper.records.trained_model import TrainedModel

MEASURES, FRAMES = "measures.json", "frames.csv"


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
        if metric not in self.numbers and (reason := metric_names.undefined(metric, self.numbers)) is not None:
            return Number(None, reason=reason)
        setting = " (robustness.metrics)" if metric.startswith("robustness.") else ""
        return self.numbers.get(metric, Number(None, reason=f"not measured{setting}"))

    def errors(self, part: str) -> Errors | None:
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
    if evaluation is None or seed not in evaluation.seeds:
        stage = strategy if strategy == FOUNDATION else f"evaluate@{strategy}"
        raise RetemperError(f"{strategy}, seed {seed} has not been evaluated.", fix=f"dvc repro -f {stage}")
    identity = evaluation.identity
    if strategy == FOUNDATION:
        weights = str(identity.get("foundation_sha256", ""))
    else:
        weights = results.trainings[strategy][seed].finished.sha256
    numbers = from_accuracy(evaluation.seeds[seed], results.settings.evaluate.confidence)
    if (robust := results.robustness.get(strategy)) is not None:
        numbers |= from_robustness(robust, seed)
        identity = {**identity, **robustness_identity(robust, seed)}
    frames = read_frames_csv(results.project.evaluation(strategy) / FRAMES)
    structures = units.read(results.project.robustness(strategy) / f"seed-{seed}" / units.UNITS)
    return Measured(strategy, seed, weights, identity, numbers, frames, structures)


def from_accuracy(accuracy: Accuracy, level: float) -> dict[str, Number]:
    """Numbers of one seed by their names; `level` is of their intervals."""
    sets, quantities = accuracy.sets(), metric_names.ERRORS | metric_names.RATIOS
    return {
        name: Number(
            estimate.value,
            estimate.low,
            estimate.high,
            quantities[name.rpartition(".")[2]].unit,
            level=level,
            groups=sets[metric_names.set_of(name)].n_groups,
        )
        for name, estimate in accuracy.numbers().items()
    }


def from_robustness(robustness: Robustness, seed: int) -> dict[str, Number]:
    """``robustness.<metric>`` of one seed; of another than those that were measured a reason and no value."""
    measures = robustness.measures(seed)
    if measures:
        return {
            f"robustness.{metric}": Number(m.value, m.low, m.high, m.unit, m.reason, groups=m.groups or None)
            for metric, m in measures.items()
        }
    reason = f"not measured for seed {seed}, only for {', '.join(map(str, robustness.seeds))} (robustness.seeds)"
    return {f"robustness.{metric}": Number(None, reason=reason) for metric in robustness.summary}


def robustness_identity(robustness: Robustness, seed: int) -> dict[str, str]:
    """What must be equal for two models' robustness to be compared, flat: ``robustness.rss.level`` and so on."""
    measures = robustness.seeds[seed].metrics if seed in robustness.seeds else {}
    return {
        f"robustness.{metric}.{part}": value
        for metric, measure in measures.items()
        for part, value in measure.identity.items()
    }


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
    for (seed, part), entries in rows.items():
        _, *columns = zip(*sorted(entries), strict=True)
        frames[seed][part] = Errors.of(*(list(column) for column in columns))
    return dict(frames)


# ------------------------------------------------------------------ kept with a version


def save(model: Measured, frames_csv: Path | None, folder: Path) -> None:
    """Write ``measures.json`` and ``units.csv``, and a copy of ``frames.csv``, into `folder`."""
    measures = Measures(
        strategy=model.strategy,
        seed=model.seed,
        sha256=model.sha256,
        identity=model.identity,
        numbers=model.numbers,
    )
    measures.write(folder / MEASURES)
    units.write(folder / units.UNITS, model.units)
    if frames_csv is not None and frames_csv.is_file():
        (folder / FRAMES).write_bytes(frames_csv.read_bytes())


def read(folder: Path) -> Measured:
    """What `save` wrote, in this version of the program or an earlier one."""
    measures, frames = Measures.of_version(folder / MEASURES), read_frames_csv(folder / FRAMES)
    identity = measures.strategy, measures.seed, measures.sha256, measures.identity
    return Measured(*identity, measures.numbers, frames, units.read(folder / units.UNITS))
