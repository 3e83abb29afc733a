"""What sweeps leave: ``about.json``, what a study is of, and ``best.yaml``, the setting to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import Field

from retemper.config import strategies
from retemper.config.project import Project
from retemper.config.strategies import Point, SearchRange
from retemper.config.strict_yaml import read_yaml
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.records.record import Part, Record

ABOUT, BEST = "about.json", "best.yaml"
MEASURED = ("target", "target_energy", "target-loss", "retention", "replay_head", "holes")  # of a complete trial


def _absent(value: Any) -> bool:
    return value is None


class StudyData(Part):
    """Hashes of what a sweep trains on."""

    target: list[str]  # labels of the training and of the validation set
    replay: list[str] | None
    foundation_sha256: str


class SweepStudy(Record):
    """``about.json`` of a study, under ``.cache/sweep`` and in ``runs/sweep/<strategy>``: what it is of."""

    STAGE: ClassVar[str] = "sweep"

    study: str  # hash of what follows
    strategy: str
    foundation: str
    data: StudyData
    retention: str | None  # hash of the labels of the structures that retention is measured on
    objectives: list[str]
    epochs: int
    seed: int
    default: str  # key of the training with the strategy's own settings
    space: dict[str, list[SearchRange]]
    family: str  # hash of strategy and data: studies of one family may start each other warm
    trials: int | None = Field(None, exclude_if=_absent)  # of the sweep that is over
    scope: str | None = Field(None, exclude_if=_absent)


class GroupErrors(Part):
    """Force errors of a model on a set, by group of structures."""

    counts: dict[str, float]  # force components
    squares: dict[str, float]  # sum of squared errors, (eV/A)^2


class Choice(Part):
    """How the trial that is used was chosen."""

    scope: str
    rule: str
    trial: int  # its number
    of: int  # trials
    alike: list[int] | None = Field(None, exclude_if=_absent)  # trials that cannot be told apart from it
    compared: int | None = Field(None, exclude_if=_absent)  # other trials
    groups: int | None = Field(None, exclude_if=_absent)  # of validation structures


class Provenance(Part):
    """What the setting was found on."""

    study: str  # its key
    training: str  # key of the trial's training
    model_sha256: str | None
    seed: int
    epochs: int
    data: StudyData
    retention: str | None  # hash of the labels of the structures that retention was measured on


class BestSetting(Record):
    """``runs/sweep/<strategy>/best.yaml``."""

    STAGE: ClassVar[str] = "sweep"

    strategy: str
    settings: Point
    objectives: dict[str, float] | None = Field(None, exclude_if=_absent)  # of the trial that is used
    default: dict[str, float] | None = Field(None, exclude_if=_absent)  # of the strategy's own settings
    chosen: Choice | str  # in words without a search
    provenance: Provenance | None = Field(None, exclude_if=_absent)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """As `Record.read`, from YAML."""
        return cls.of(read_yaml(Path(path)), path)

    def write(self, path: str | Path) -> None:
        """As `Record.write`, as YAML."""
        with atomic_write(str(path)) as temporary:
            temporary.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def best_settings(project: Project, strategy: str) -> Point:
    """Values by dotted path that the sweep chose; empty without a search.

    Raises
    ------
    RetemperError
        An unknown strategy, or its sweep stage has not run.
    """
    strategies.load(strategy, project.root)
    path = project.sweep(strategy) / BEST
    if not path.is_file():
        raise RetemperError(f"{path} does not exist.", fix=f"python -m pipelines.sweep {strategy}, or `dvc repro`")
    return BestSetting.read(path).settings
