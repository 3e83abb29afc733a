"""What a sweep is of: the strategy's space, the data, the budget of a trial, and the key of its study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from retemper.config.project import Project
from retemper.config.settings import WEIGHT
from retemper.config.strategies import Point, load
from retemper.core.errors import RetemperError
from retemper.core.files import digest
from retemper.finetune import planning
from retemper.finetune.plan import Plan, counted
from retemper.models.head_names import TARGET
from retemper.records.sweep import StudyData, SweepStudy
from retemper.sweep import objectives
from retemper.sweep import space as spaces
from retemper.sweep.space import Space


@dataclass(frozen=True)
class Sweep:
    """A sweep of one strategy of a project."""

    project: Project
    budget: Project  # the same with the one seed and the epochs of a trial
    strategy: str
    retention: Path | None  # structures that retention is measured on
    space: Space
    about: SweepStudy

    def plan(self, params: Point) -> Plan:
        """What a trial at a point of the space trains."""
        return planning.plans(self.budget, self.strategy, params)[0]

    @property
    def folder(self) -> Path:
        """Of the study."""
        return self.project.cache("sweep") / self.about.study


def make_sweep(project: Project, strategy: str) -> Sweep:
    """The sweep that the settings ask for.

    Raises
    ------
    RetemperError
        Retention counts, and cannot be measured.
    """
    settings, options = project.settings, project.settings.sweep
    retention = objectives.retention_file(project)
    objectives.check(options.objectives, retention)
    if WEIGHT[options.scope] > 0 and retention is None:
        raise RetemperError(
            f"sweep.scope {options.scope} weighs retention, and there are no structures to measure it on.",
            fix="dvc repro replay, or sweep.scope to single-system",
        )
    finetune = settings.finetune.model_copy(update={"epochs": options.epochs or settings.finetune.epochs})
    of_trial = settings.model_copy(update={"seeds": settings.seeds[:1], "finetune": finetune})
    budget = replace(project, settings=of_trial)
    (default,) = planning.plans(budget, strategy)
    replayed = default.replay.n_train if default.replay else 0
    full = load(strategy, project.root, settings.finetune.overrides)
    space = spaces.build(full, settings, default.target.n_train, replayed)
    return Sweep(project, budget, strategy, retention, space, _about(project, strategy, default, space, retention))


def _about(project: Project, strategy: str, default: Plan, space: Space, retention: Path | None) -> SweepStudy:
    """The study's identity, with its key."""
    replayed = [head for name, head in default.heads.items() if name != TARGET]
    data = StudyData(
        target=[default.target.train_hash, default.target.valid_hash],
        replay=[digest for head in replayed for digest in (head.train_hash, head.valid_hash)] or None,
        foundation_sha256=default.foundation_sha256,
    )
    about = SweepStudy(
        study="",
        strategy=strategy,
        foundation=project.settings.foundation,
        data=data,
        retention=counted(retention)[1] if retention else None,
        objectives=list(project.settings.sweep.objectives),
        epochs=default.epochs,
        seed=default.seed,
        default=default.key,
        space=space.ranges,
        family=digest([strategy, data.model_dump()]),
    )
    about.study = digest(about.model_dump(exclude={"form", "study"}))
    return about
