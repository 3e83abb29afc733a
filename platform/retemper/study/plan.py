"""From points to runs: each a whole `Settings` with keys that name everything its result depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from retemper import systems
from retemper.config import foundation_files, foundations, pretraining_data, strategies
from retemper.config.settings import Settings, parse
from retemper.config.strategies import Strategy
from retemper.core import software
from retemper.core.errors import RetemperError
from retemper.core.files import digest
from retemper.evaluation.robustness import metrics
from retemper.finetune.plan import versions
from retemper.prepare import inputs
from retemper.study.design import Levels, Point, points
from retemper.study.spec import ALL, AXES, OWN, PARAMS, Level, Study

# Stages of the pipeline whose code is behind a stage of a study, its own the last; a run has that of all it needs.
BEHIND = {
    "dataset": ("dataset",),
    "whole": ("dataset",),
    "e0s": ("dataset", "e0s"),
    "replay": ("dataset", "replay"),
    "pseudolabel": ("dataset", "replay", "pseudolabel"),
    "foundation": ("dataset", "e0s", "evaluate"),
    "foundation-robustness": ("dataset", "robustness"),
    "run": ("finetune", "evaluate"),
}
FIGURED = {"observables"}  # metrics that read the files in the folder robustness.figures
NO_CONSEQUENCE = {"device", "workers", "valid_batch_size", "overrides", "start", "ray"}  # fields beside the result


@dataclass(frozen=True)
class Run:
    """One run of a study."""

    levels: Levels  # a level of every axis
    designs: tuple[str, ...]
    settings: Settings
    root: Path  # of the project

    @property
    def seed(self) -> int:
        return self.settings.seeds[0]

    @property
    def name(self) -> str:
        """The strategy's name."""
        return self.settings.strategies[0]

    @cached_property
    def strategy(self) -> Strategy:
        """The strategy with the run's settings."""
        return strategies.load(self.name, self.root, self.settings.finetune.overrides)

    @cached_property
    def foundation(self) -> dict[str, str | None]:
        """What identifies the foundation: hash of its weights, head."""
        entry = foundations.of_settings(self.settings, self.root)
        return {"sha256": file_hash(foundation_files.weights(entry, self.root)), "head": entry.head}

    @property
    def replayed(self) -> bool:
        """Whether the strategy looks at pretraining structures: replays them, or goes back towards the foundation."""
        return self.strategy.replay is not None or self.strategy.interpolate is not None

    @property
    def pseudolabelled(self) -> bool:
        """Whether it may need the foundation's labels of them."""
        replay = self.strategy.replay
        return self.strategy.interpolate is not None or (replay is not None and replay.labels == "foundation")

    @property
    def keeps_apart(self) -> bool:
        """Whether no retention set is named, and structures of the pools are kept apart for it."""
        entry = foundations.of_settings(self.settings, self.root)
        return pretraining_data.retention(self.settings, entry) is None

    @property
    def everything(self) -> Settings:
        """The settings with every training structure of the system: what the replay set is chosen beside.

        Runs of all sizes then replay the same structures, and the set is chosen once.
        """
        dataset = self.settings.dataset.model_copy(update={"max_train": None})
        return self.settings.model_copy(update={"dataset": dataset})

    # ------------------------------------------------------------------ keys

    def _dataset(self, settings: Settings) -> str:
        files = settings.dataset.all_files
        return digest(
            {
                "system": settings.system,
                "settings": settings.dataset.model_dump(exclude={"files", "test_files"}),
                "test_files": settings.dataset.test_files,
                "files": [file_hash(self.root / name) for name in files],
                "elements": foundations.of_settings(settings, self.root).elements or self.foundation["sha256"],
                "versions": versions(),
            }
        )

    @cached_property
    def keys(self) -> dict[str, str]:
        """Key of every stage that the run needs, and of the run itself under ``run``."""
        settings, entry = self.settings, foundations.of_settings(self.settings, self.root)
        named = pretraining_data.retention(settings, entry)
        retention = self._file(named[0]) if named is not None else None
        keys = {"dataset": self._dataset(settings)}
        keys["e0s"] = digest([keys["dataset"], self.foundation, settings.e0s.model_dump()])
        if self.replayed or self.keeps_apart:
            keys["whole"] = self._dataset(self.everything)
            replay = settings.replay.model_dump(exclude={"pools", "heads"})
            keys["replay"] = digest([keys["whole"], self.foundation, replay, self._pools(), retention])
        further = [settings.replay.heads] if self.replayed and settings.replay.heads else []
        if self.keeps_apart:
            retention = keys["replay"]
        if self.pseudolabelled:
            keys["pseudolabel"] = digest([keys["replay"], settings.pseudolabel.model_dump(), *further])
        accuracy = settings.evaluate.model_dump(exclude={"retention"})
        keys["foundation"] = digest([keys["e0s"], retention, accuracy])
        robustness = None
        if settings.robustness.metrics:
            suite = settings.robustness.model_dump(exclude={"workers", "ray", "reference", "seeds"})
            robustness = {**suite, "reference": self._file(settings.robustness.reference), "retention": retention}
            if suite["figures"] is not None and FIGURED & set(metrics.resolve(suite["metrics"])):
                robustness["figures"] = self._folder(suite["figures"])
            keys["foundation-robustness"] = digest([keys["dataset"], self.foundation, robustness])
        content = self.strategy.model_dump(exclude={"name", "about", "search"})
        finetune = settings.finetune.model_dump(exclude=NO_CONSEQUENCE)
        keys["run"] = digest([dict(keys), content, self.seed, finetune, robustness, *further])
        return keys

    @property
    def key(self) -> str:
        """Names the run's result."""
        return self.keys["run"]

    @cached_property
    def code(self) -> dict[str, str]:
        """Hash of the code of each pipeline stage that the run needs; it is recorded with the result."""
        stages = dict.fromkeys(stage for kind in self.keys for stage in BEHIND[kind])
        return {stage: digest(inputs.code_of(stage, self.settings)) for stage in stages}

    @cached_property
    def folders(self) -> dict[str, str]:
        """Names of the folders of the stages: their keys with the code behind them, so that mended code runs."""
        return {
            kind: digest([key, [self.code[stage] for stage in self._behind(kind)]])
            for kind, key in self.keys.items()
            if kind != "run"
        }

    def _behind(self, kind: str) -> tuple[str, ...]:
        """Stages of the pipeline whose code is behind a stage."""
        return (*BEHIND[kind], "replay") if self.keeps_apart and kind.startswith("foundation") else BEHIND[kind]

    def _pools(self) -> object:
        """What identifies the pools; of one file as it is, its hash."""
        sources = pretraining_data.pools(self.settings, foundations.of_settings(self.settings, self.root))
        hashes = [source.name if source.generated else file_hash(source.path(self.root)) for source in sources]
        more = [[s.share, s.keys.model_dump(exclude_unset=True)] for s in sources]
        return hashes[0] if more == [[None, {}]] else [hashes, more]

    def _file(self, name: str | None) -> str | None:
        return None if name is None else file_hash(self.root / name)

    def _folder(self, name: str) -> list[tuple[str, str]]:
        """Names and hashes of a folder's files; none where there is no folder: its metric then has no such cases."""
        folder = self.root / name
        files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        return [(path.name, file_hash(path)) for path in files]

    def words(self) -> str:
        """The run's levels in few words."""
        return " ".join(
            f"{axis} {level}" if axis in ("size", "seed") or "." in axis else str(level)
            for axis, level in self.levels.items()
            if not ("." in axis and level == OWN)
        )


def file_hash(path: Path) -> str:
    """Hash of a file's bytes; an unchanged file is read once."""
    if not path.is_file():
        raise RetemperError(f"{path} does not exist.", fix="check the path, or `dvc pull`")
    return software.content(path)


def runs(study: Study, root: Path) -> list[Run]:
    """All runs of a study, in the order of its designs.

    Raises
    ------
    RetemperError
        An unknown system, foundation, strategy, metric or setting; a level that its setting does not take.
    """

    def lacks(strategy: str, axis: str) -> bool:
        if axis.startswith(PARAMS):
            return False
        section, _, field = axis.partition(".")
        value = getattr(strategies.load(strategy, root), section, None)
        return not hasattr(value, field.partition(".")[0])

    names = {str(level) for design in study.designs.values() for level in design.axes.get("strategy", [])}
    names |= {str(study.centre["strategy"])}
    for axis in study.axes:
        if "." in axis and not axis.startswith(PARAMS) and all(lacks(strategy, axis) for strategy in names):
            raise RetemperError(
                f"Study {study.name}: no strategy in it has the setting {axis}.",
                expected="a setting of a strategy such as training.lr or lora.rank",
                got=f"strategies {', '.join(sorted(names))}",
                fix=f"correct the axis; a setting of params.yaml is written {PARAMS}finetune.epochs",
            )
    return [Run(p.levels, p.designs, settings_of(study, p, root), root) for p in points(study, lacks)]


def settings_of(study: Study, point: Point, root: Path) -> Settings:
    """The settings of a point: ``base`` over the defaults, then the point's levels."""
    levels = point.levels
    source = f"study {study.name}, {levels}"
    sections: dict[str, dict[str, Any]] = {name: dict(content) for name, content in study.base.items()}
    for axis, level in levels.items():
        if axis.startswith(PARAMS) and level != OWN:
            section, _, field = axis.removeprefix(PARAMS).partition(".")
            if "." in field:
                raise RetemperError(f"{source}: {axis} is no setting.", expected=f"such as {PARAMS}finetune.epochs")
            sections.setdefault(section, {})[field] = level
    finetune = sections.setdefault("finetune", {})
    if finetune.get("start", "foundation") != "foundation":
        raise RetemperError(f"{source}: runs of a study start from the foundation.", fix="drop finetune.start")
    strategy_levels = {axis: level for axis, level in levels.items() if "." in axis and not axis.startswith(PARAMS)}
    overrides = dict(finetune.get("overrides", {}))
    strategy = strategies.load(str(levels["strategy"]), root)
    for axis, level in strategy_levels.items():
        if level != OWN:
            overrides[axis] = level_value(strategy, axis, level)
    system = systems.find(str(levels["system"]), root)
    size = None if levels["size"] == ALL else levels["size"]
    dataset = {"rounds": [], **sections.get("dataset", {}), "max_train": size}
    robustness = {**sections.get("robustness", {}), "level": study.level, "workers": 1, "seeds": None}
    settings = parse(
        Settings,
        {
            **{name: content for name, content in sections.items() if name not in ("dataset", "robustness")},
            "system": system.name,
            "foundation": levels["foundation"],
            "strategies": [strategy.name],
            "seeds": [levels["seed"]],
            "dataset": system.dataset(**dataset),
            "e0s": {**sections.get("e0s", {}), "method": levels["e0s"]},
            "finetune": {**finetune, "overrides": overrides},
            "robustness": system.robustness(**robustness, metrics=study.metrics or ["all"]),
        },
        source,
    )
    places(settings, root)
    strategies.load(strategy.name, root, overrides, source=source)
    if not study.metrics:
        return settings.model_copy(update={"robustness": settings.robustness.model_copy(update={"metrics": []})})
    metrics.resolve(study.metrics)
    return settings


def places(settings: Settings, root: Path) -> list[str]:
    """First parts of the relative paths that a run reads beside its stages: its folder has links of these names.

    Raises
    ------
    RetemperError
        An unknown foundation; a path for whose first part there can be no link.
    """
    entry, robustness = foundations.of_settings(settings, root), settings.robustness
    retention = pretraining_data.retention(settings, entry)
    paths = [entry.file, retention[0] if retention else None, robustness.reference, robustness.figures]
    paths += [p.name for p in pretraining_data.pools(settings, entry) if not (p.generated or p.published)]
    names: list[str] = []
    for name in paths:
        if name is None or Path(name).is_absolute():
            continue
        first = (*Path(name).parts, ".")[0]
        if first in (".", "..", "runs"):
            raise RetemperError(
                f"The runs of a study cannot read {name!r}.",
                expected="a path inside the project and not in runs, or an absolute one",
                fix="move the file, or give its absolute path",
            )
        names.append(first)
    return names


def level_value(strategy: Strategy, axis: str, level: Level) -> Level:
    """The value that a level stands for: itself, or with ``x10`` ten times what the strategy has.

    A factor is the same perturbation for strategies whose own values differ.
    """
    if isinstance(level, str) and level.startswith("x"):
        try:
            factor = float(level[1:])
        except ValueError:
            return level
        value = strategies.value_at(strategy, axis)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise RetemperError(
                f"{axis} {level}: strategy {strategy.name} has {value!r} there, which has no multiples.",
                fix="give values instead of factors",
            )
        return type(value)(value * factor)
    return level


def values(run: Run) -> Mapping[str, Level]:
    """What the dotted axes are in this run, factors and `OWN` resolved."""
    levels: dict[str, Level] = {}
    for axis in run.levels:
        if axis in AXES:
            continue
        if axis.startswith(PARAMS):
            section, _, field = axis.removeprefix(PARAMS).partition(".")
            value = getattr(getattr(run.settings, section), field)
            levels[axis] = value if value is None or isinstance(value, str | int | float) else run.levels[axis]
        else:
            levels[axis] = _value(run.strategy, axis)
    return levels


def _value(strategy: Strategy, axis: str) -> Level:
    """A strategy's value, of the setting's type however the level was written; `None` where it has no such section."""
    value: Any = strategy
    for part in axis.split("."):
        value = getattr(value, part, None)
    return value if isinstance(value, str | int | float) else None
