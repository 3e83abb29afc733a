"""``studies/<name>.yaml`` as typed, frozen settings. Unknown keys are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from retemper.config import metric_names
from retemper.config.setting_errors import Place, explain, in_file
from retemper.config.settings import Name, Once, Open, Section, Seed, Settings, parse_named
from retemper.config.strict_yaml import Location, read_yaml
from retemper.core.errors import unknown

Level = str | bool | int | float | None
AXES = ("system", "foundation", "e0s", "strategy", "size", "seed")
PARAMS = "params."  # axes of params.yaml: params.finetune.epochs; other dotted axes are settings of the strategy
OWN = "own"  # level of a dotted axis: what strategy or section has without the axis
ALL = "all"  # level of the axis size: every training structure
SHARED = ("dataset", "e0s", "replay", "pseudolabel", "finetune", "evaluate", "robustness")
# Settings that a run has from elsewhere: a value in base or on an axis would have no effect.
ELSEWHERE = {
    "dataset.max_train": "use the axis size",
    "e0s.method": "use the axis e0s",
    "robustness.metrics": "metrics stand at the top of a study",
    "robustness.level": "level stands at the top of a study",
    "robustness.workers": "a run has one core",
    "robustness.ray": "a run has one core",
    "robustness.seeds": "use the axis seed",
}


class Design(Section):
    """Which points are run: the axes that vary; all others stay at the centre."""

    kind: Literal["full", "one-at-a-time", "fractional"] = "full"  # which points of the axes are run
    axes: dict[str, list[Level]] = Field(min_length=1)  # what varies, with its levels
    runs: int | None = Field(None, ge=1)  # of a fractional design
    seed: Seed = 0  # of a fractional design

    @model_validator(mode="after")
    def _complete(self) -> Design:
        if (self.kind == "fractional") != (self.runs is not None):
            raise ValueError("`runs` belongs to fractional designs, and those need it")
        for axis, levels in self.axes.items():
            check_axis(axis)
            if not levels or len({repr(level) for level in levels}) < len(levels):
                raise ValueError(f"axis {axis} needs levels, each once")
        return self


class Budget(Section):
    """No further run is started, and no stage for it, when its expected cost does not fit any more."""

    cpu_hours: float | None = Field(None, gt=0)  # hours of one core
    gpu_hours: float | None = Field(None, gt=0)  # hours of one GPU, in the place of cpu_hours

    @model_validator(mode="after")
    def _one_unit(self) -> Budget:
        if (self.cpu_hours is None) == (self.gpu_hours is None):
            raise ValueError("give cpu_hours or gpu_hours")
        return self

    @property
    def seconds(self) -> float:
        """Of one core, or of one GPU."""
        return 3600.0 * (self.cpu_hours or self.gpu_hours or 0.0)


class Study(Section):
    """One study. `name` is the file's stem."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")  # the file's stem
    about: str = ""  # one sentence
    base: dict[str, Open] = {}  # sections of params.yaml for every run, over their defaults
    centre: dict[str, Level]  # a level of every axis: system, foundation, strategy, size; e0s, seed where not the usual
    designs: dict[str, Design] = Field(min_length=1)  # by name; a point that several have is run once
    metrics: Once[Name] = []  # robustness metrics, as `retemper metrics` lists them; none: accuracy and retention alone
    level: Literal["quick", "standard", "thorough"] = "quick"  # of the robustness metrics
    budget: Budget | None = None  # null: none

    _known_metrics = field_validator("metrics")(metric_names.check_suite)

    @model_validator(mode="after")
    def _known(self) -> Study:
        for section, content in self.base.items():
            check_section(section, "base")
            for field in content:
                check_setting(f"{section}.{field}", "base")
        for axis in self.centre:
            check_axis(axis)
        missing = [axis for axis in AXES if axis not in {"e0s": "", "seed": "", **self.centre}]
        if missing:
            raise ValueError(f"centre: a level of {', '.join(missing)} is missing")
        return self

    @property
    def axes(self) -> list[str]:
        """All axes of the study: the usual ones, then the dotted ones as they come."""
        dotted = [axis for design in self.designs.values() for axis in design.axes if "." in axis]
        return [*AXES, *dict.fromkeys([*(axis for axis in self.centre if "." in axis), *dotted])]

    def middle(self) -> dict[str, Level]:
        """The centre with a level of every axis."""
        defaults: dict[str, Level] = {"e0s": "reestimate", "seed": 1}
        return {axis: {**defaults, **self.centre}.get(axis, OWN) for axis in self.axes}


def check_axis(axis: str) -> None:
    """Raise where `axis` is neither one of `AXES` nor a dotted setting or setting of a strategy, or has no effect."""
    if axis.startswith(PARAMS):
        setting = axis.removeprefix(PARAMS)
        check_section(setting.partition(".")[0], f"axis {axis}")
        check_setting(setting, f"axis {axis}")
    elif "." not in axis and axis not in AXES:
        raise ValueError(str(unknown("axis", axis, [*AXES, "training.lr", "params.finetune.epochs"])).splitlines()[0])


def check_section(section: str, source: str) -> None:
    """Raise where a section of params.yaml is not one that runs of a study have in common."""
    if section not in SHARED:
        raise ValueError(f"{source}: {section} is not shared by runs; use one of {', '.join(SHARED)}")


def check_setting(setting: str, source: str) -> None:
    """Raise where params.yaml has no such setting, or a run has it from elsewhere."""
    if setting in ELSEWHERE:
        raise ValueError(f"{source}: {setting} has no effect: {ELSEWHERE[setting]}")
    section, _, field = setting.partition(".")
    fields = _section(section).model_fields
    if field not in fields:
        raise unknown(f"setting of {section} ({source})", field, fields)


def _section(name: str) -> type[BaseModel]:
    """The model of a section of params.yaml."""
    model = Settings.model_fields[name].annotation
    assert isinstance(model, type) and issubclass(model, BaseModel)
    return model


def load(path: str | Path) -> Study:
    """Read and check a study.

    Raises
    ------
    RetemperError
        A missing or broken file, an unknown key, axis or section, a value in ``base`` that its setting does not take.
    """
    path = Path(path)
    place = in_file(path)
    study = parse_named(Study, path.stem, read_yaml(path), place)
    for section, content in study.base.items():
        _check_values(section, content, place)
    return study


def _check_values(section: str, content: dict[str, object], place: Place) -> None:
    """Raise where a value in ``base`` is not one of its setting; what is missing comes from elsewhere."""

    def within(location: Location) -> str:
        return place(("base", section, *location))

    model = _section(section)
    try:
        model.model_validate(content)
    except ValidationError as error:
        problems = [problem for problem in error.errors(include_url=False) if problem["type"] != "missing"]
        if problems:
            raise explain(problems, model, within) from None
