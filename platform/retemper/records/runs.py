"""What the stages left under ``runs/``, read once and typed: the input of report, tracking and registry.

Nothing is computed here beyond ratios and fronts. A stage that has not run gives `None` or
an empty mapping, and `missing` names it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from retemper.config import metric_names
from retemper.config.project import FOUNDATION as FOUNDATION
from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.records.dataset import DatasetManifest
from retemper.records.e0s import ReferenceEnergies
from retemper.records.evaluation import Estimate, Evaluation
from retemper.records.pseudolabel import PseudolabelManifest
from retemper.records.record import OtherFormError, Record
from retemper.records.registration import Registration
from retemper.records.replay import ReplayManifest
from retemper.records.robustness import Robustness
from retemper.records.training import Effective, SeedOutcome, TrainingSummary
from retemper.records.verdict import Verdict

Name = TypeVar("Name", str, int)
Kind = TypeVar("Kind", bound=Record)


@dataclass(frozen=True)
class Training:
    """One seed of one strategy: its folder and what is in it."""

    strategy: str
    seed: int
    folder: Path
    history: list[dict[str, float]]  # one row an epoch, columns of history.csv that hold a number
    effective: Effective | None  # None while the seed trains
    outcome: SeedOutcome | None  # None while seeds still train
    walk: list[dict[str, float]] = field(default_factory=list)  # rows of walk.csv, of strategies that interpolate

    @property
    def model(self) -> Path:
        return self.folder / weight_files.NAME

    @property
    def proven(self) -> bool:
        """Whether what ran was read back and nothing differs from what was asked."""
        return self.effective is not None and not self.effective.differences

    @property
    def finished(self) -> SeedOutcome:
        """What it came to.

        Raises
        ------
        RetemperError
            Its strategy's seeds still train.
        """
        if self.outcome is None:
            raise RetemperError(f"{self.folder} has no summary yet.", fix=f"dvc repro finetune@{self.strategy}")
        return self.outcome


@dataclass(frozen=True)
class Results:
    """Everything under ``runs/`` for the strategies of a project."""

    project: Project
    dataset: DatasetManifest | None
    e0s: ReferenceEnergies | None
    replay: ReplayManifest | None
    pseudolabel: PseudolabelManifest | None
    summaries: dict[str, TrainingSummary]
    trainings: dict[str, dict[int, Training]]
    evaluations: dict[str, Evaluation]  # strategies and "foundation"
    registered: dict[str, Registration]
    robustness: dict[str, Robustness] = field(default_factory=dict)  # strategies and "foundation"
    verdict: Verdict | None = None  # of the stage promote
    missing: list[str] = field(default_factory=list)  # stages without results, as `dvc repro` calls them

    @property
    def root(self) -> Path:
        return self.project.root

    @property
    def settings(self) -> Settings:
        return self.project.settings

    def groups(self) -> dict[str, int]:
        """Groups of test structures that intervals are over, by set; of the first evaluation that is there."""
        for evaluation in self.evaluations.values():
            sets = next(iter(evaluation.seeds.values())).sets()
            other = metric_names.OTHER_HEAD.values()  # the same structures as another set's
            return {
                name: errors.n_groups
                for name, errors in sets.items()
                if name not in other and not metric_names.of_kept(name)
            }
        return {}

    def numbers(self, name: str, seed: int | None = None) -> dict[str, Estimate]:
        """Every number of a strategy's model, or of the foundation (seed 0), by its name; without a seed over seeds."""
        numbers: dict[str, Estimate] = {}
        if (evaluation := self.evaluations.get(name)) is not None:
            numbers |= evaluation.numbers(seed)
        if (robustness := self.robustness.get(name)) is not None:
            numbers |= robustness.numbers(seed)
        return numbers

    def flat(self, name: str, seed: int) -> dict[str, float]:
        """One seed's numbers with what stands beside them: ``target.force_rmse.low``, ``robustness.rss.score``..."""
        flat = dict(self.evaluations[name].seeds[seed].beside())
        if (robustness := self.robustness.get(name)) is not None:
            flat |= robustness.beside(seed)
        for key, estimate in self.numbers(name, seed).items():
            bounds = {key: estimate.value, f"{key}.low": estimate.low, f"{key}.high": estimate.high}
            flat |= {part: value for part, value in bounds.items() if value is not None}
        return flat

    def counts(self) -> dict[str, int]:
        """Structures by set (train, valid, test, ...) of the data set; empty without a manifest."""
        return {name: part.frames for name, part in self.dataset.sets.items()} if self.dataset else {}


def read_results(project: Project, *, strategies: list[str] | None = None) -> Results:
    """Read ``runs/`` of a project; files that are broken are errors, files that are not there are `missing`."""
    names = list(project.settings.strategies if strategies is None else strategies)
    missing: list[str] = []

    def typed(kind: type[Kind], path: Path, stage: str) -> Kind | None:
        try:
            if path.is_file():
                return kind.read(path)
            missing.append(stage)
        except OtherFormError:
            missing.append(f"{stage} (made by another version: dvc repro -f {stage})")
        return None

    dataset = typed(DatasetManifest, project.manifest, "dataset")
    e0s = typed(ReferenceEnergies, project.e0s, "e0s")
    replay = typed(ReplayManifest, project.replay / "manifest.json", "replay")
    pseudolabel = typed(PseudolabelManifest, project.pseudolabel / "manifest.json", "pseudolabel")
    summaries: dict[str, TrainingSummary] = {}
    trainings: dict[str, dict[int, Training]] = {}
    evaluations: dict[str, Evaluation] = {}
    registered: dict[str, Registration] = {}
    for name in names:
        summary = typed(TrainingSummary, project.summary(name), f"finetune@{name}")
        if summary is not None:
            summaries[name] = summary
        seeds = read_seeds(project, name, summary)
        if seeds:
            trainings[name] = seeds
    for name in (FOUNDATION, *names):
        stage = FOUNDATION if name == FOUNDATION else f"evaluate@{name}"
        evaluation = typed(Evaluation, project.evaluation(name) / "metrics.json", stage)
        if evaluation is not None:
            evaluations[name] = evaluation
    robustness: dict[str, Robustness] = {}
    for name in (FOUNDATION, *names):
        stage = f"robustness-{FOUNDATION}" if name == FOUNDATION else f"robustness@{name}"
        measured = typed(Robustness, project.robustness(name) / "metrics.json", stage)
        if measured is not None:
            robustness[name] = measured
    for name in names:
        record = typed(Registration, project.registered(name), f"register@{name}")
        if record is not None and record.versions:
            registered[name] = record
        elif record is not None:
            missing.append(f"register@{name} (an experiment registers nothing: dvc exp apply, dvc repro)")
    verdict = typed(Verdict, project.verdict, "promote") if project.settings.promotion.gates else None
    return Results(
        project,
        dataset,
        e0s,
        replay,
        pseudolabel,
        summaries,
        trainings,
        evaluations,
        registered,
        robustness,
        verdict,
        missing,
    )


def read_seeds(project: Project, strategy: str, summary: TrainingSummary | None) -> dict[int, Training]:
    """The seeds of a strategy by number: those of its `summary`, or all folders while no file is there."""
    folder = project.finetuned(strategy)
    outcomes: dict[int, SeedOutcome | None] = {}
    if summary is not None:
        outcomes |= summary.seeds
    elif not (folder / "summary.json").is_file():
        names = [path.name.removeprefix("seed-") for path in folder.glob("seed-*") if (path / "history.csv").is_file()]
        outcomes |= {int(seed): None for seed in names if seed.isdigit()}
    return {
        seed: read_training(folder / f"seed-{seed}", strategy, seed, outcome)
        for seed, outcome in sorted(outcomes.items())
    }


def read_training(folder: Path, strategy: str, seed: int, outcome: SeedOutcome | None = None) -> Training:
    """One seed's folder. Without an `outcome` the run is not finished: files may be missing."""
    effective, epochs, walk = (folder / name for name in ("effective.json", "history.csv", "walk.csv"))
    return Training(
        strategy=strategy,
        seed=seed,
        folder=folder,
        history=read_history(epochs) if outcome or epochs.is_file() else [],
        effective=Effective.read(effective) if effective.is_file() else None,
        outcome=outcome,
        walk=read_history(walk) if walk.is_file() else [],
    )


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file as text; a missing file is a `RetemperError`."""
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise RetemperError(f"{path} does not exist.", fix="run `dvc repro` to make it") from None


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of a ``history.csv``, empty cells left out, columns under today's names."""
    try:
        rows = [{name: float(value) for name, value in row.items() if name and value} for row in read_table(path)]
    except ValueError as error:
        raise RetemperError(
            f"{path} is broken: {error}.", expected="numbers", fix="delete the folder and run again"
        ) from error
    return [metric_names.renamed(row) for row in rows]


# ------------------------------------------------------------------ numbers out of metrics.json


def pareto_front(points: Mapping[Name, tuple[float, ...]]) -> list[Name]:
    """Names of the points that no other point beats: all coordinates are to be small.

    A point is dominated when another is at most as large in every coordinate and smaller in one
    (Deb, Multi-Objective Optimization using Evolutionary Algorithms, 2001, definition 2.5).
    """
    return [
        name
        for name, point in points.items()
        if not any(
            other != point and all(u <= x for u, x in zip(other, point, strict=True)) for other in points.values()
        )
    ]
