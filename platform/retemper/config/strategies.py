"""Fine-tuning strategies as data: ``strategies/<name>.yaml`` over ``strategies/base.yaml``.

A strategy says where the weights start, which parameters train, and whether a replay
head keeps learning the pretraining structures. Any combination is allowed: replay with
freezing, with adapters, at any weight. Settings follow arXiv:2606.12704.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from retemper.config.setting_errors import Place, in_file
from retemper.config.settings import Section, parse_named
from retemper.config.strict_yaml import Location, read_yaml
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import project_root

Value = str | bool | int | float | None  # of a setting that a sweep may vary
Point = dict[str, Value]  # such values by dotted path, as training.lr


class Lora(Section):
    rank: int = Field(4, ge=1)
    alpha: float = Field(1.0, gt=0)  # adapters are scaled by alpha / rank


class Replay(Section):
    labels: Literal["original", "foundation"]
    weight: float = Field(1.0, ge=0)
    batch_size: int = Field(8, ge=1)
    number: int | None = Field(None, ge=1)
    energy_weight: float = Field(1.0, ge=0)
    forces_weight: float = Field(10.0, ge=0)
    stress_weight: float = Field(1.0, ge=0)


class Training(Section):
    lr: float = Field(gt=0)
    ema_decay: float | None = Field(gt=0, lt=1)
    clip_grad: float | None = Field(gt=0)
    optimizer: Literal["adam", "adamw"]
    weight_decay: float = Field(ge=0)
    scheduler: Literal["ReduceLROnPlateau", "ExponentialLR"]
    lr_factor: float = Field(gt=0, le=1)
    scheduler_patience: int = Field(ge=0)
    patience: int = Field(ge=1)
    batch_size: int | None = Field(ge=1)


class Loss(Section):
    energy_weight: float = Field(ge=0)
    forces_weight: float = Field(ge=0)
    stress_weight: float = Field(ge=0)
    huber_delta: float = Field(gt=0)


class SearchRange(Section):
    """A continuous range (`low`, `high`, `log`) or a list of `choices`.

    `when` maps paths listed earlier to the values for which this range counts.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Value] | None = None
    when: dict[str, list[Value]] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> SearchRange:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give either low and high, or choices")
        if self.choices is not None and len({repr(choice) for choice in self.choices}) < len(self.choices):
            raise ValueError("list each choice once")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError("low must be above 0 on a log scale")
        return self


def _as_lists(search: Any) -> Any:
    """A parameter with one range may be written without the list."""
    if isinstance(search, dict):
        return {path: [ranges] if isinstance(ranges, dict) else ranges for path, ranges in search.items()}
    return search


Search = Annotated[dict[str, list[SearchRange]], BeforeValidator(_as_lists)]


class Strategy(Section):
    name: str
    about: str
    start: Literal["foundation", "random"]
    freeze: Literal[5, 6] | None
    lora: Lora | None
    replay: Replay | None
    training: Training
    loss: Loss
    search: Search

    @model_validator(mode="after")
    def _possible(self) -> Strategy:
        if self.start == "random" and (self.freeze or self.lora or self.replay):
            raise ValueError(
                "start: random trains everything from scratch; freeze, lora and replay need start: foundation"
            )
        return self

    @model_validator(mode="after")
    def _searchable(self) -> Strategy:
        earlier: set[str] = set()
        for path, ranges in self.search.items():
            if not all(set(alternative.when) <= earlier for alternative in ranges):
                raise ValueError(f"search: `when` of {path} must name parameters listed before it")
            if len(ranges) > 1 and any(alternative.choices is not None for alternative in ranges):
                raise ValueError(f"search: alternatives of {path} must be ranges (choices cannot change)")
            if len({alternative.log for alternative in ranges}) > 1:
                raise ValueError(f"search: alternatives of {path} must all be on a log scale or none")
            earlier.add(path)
        return self


def names(root: Path | None = None) -> list[str]:
    """Names of all strategies of a project."""
    folder = (root or project_root()) / "strategies"
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem != "base")


def load(
    name: str,
    root: Path | None = None,
    overrides: dict[str, Any] | None = None,
    point: Point | None = None,
    source: str = "params.yaml (finetune.overrides)",
) -> Strategy:
    """Read a strategy, with changes by dotted path (``training.lr``).

    Parameters
    ----------
    overrides
        Changes that a user has written; `source` says where, for errors.
    point
        Changes that a sweep has found, over those.

    Raises
    ------
    RetemperError
        An unknown strategy, setting or path, with the nearest that exists.
    """
    root = root or project_root()
    if name not in names(root):
        raise unknown("strategy", name, names(root))
    base, file = (root / f"strategies/{stem}.yaml" for stem in ("base", name))
    specific = read_yaml(file)
    content = merge(read_yaml(base), specific)
    sources = dict.fromkeys(overrides or {}, source) | dict.fromkeys(point or {}, f"runs/sweep/{name}/best.yaml")
    for path, value in {**(overrides or {}), **(point or {})}.items():
        *folders, leaf = path.split(".")
        target = content
        for folder in folders:
            if not isinstance(target.get(folder), dict):
                raise RetemperError(
                    f"Strategy {name} has no setting {path}.",
                    expected=f"a path below {', '.join(k for k, v in content.items() if isinstance(v, dict))}",
                    fix=f"take it out of {sources[path]}, or choose a strategy that has it",
                )
            target = target[folder]
        target[leaf] = value
    files = (in_file(file, f"strategies/{name}.yaml"), in_file(base, "strategies/base.yaml"))
    return parse_named(Strategy, name, content, _place(specific, sources, *files))


def _place(specific: dict[str, Any], sources: dict[str, str], file: Place, base: Place) -> Place:
    """Where a setting of a strategy stands: in its file (`specific`), in the base's, or in one of `sources`."""

    def place(location: Location) -> str:
        for path, source in sources.items():
            if ".".join(map(str, location)).startswith(path):
                return source
        node: Any = specific
        for part in location[:2]:
            if not isinstance(node, dict) or part not in node:
                return base(location)
            node = node[part]
        return file(location)

    return place


def in_words(value: Value) -> str:
    """A setting in few characters."""
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`; sections are merged key by key."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


def value_at(strategy: Strategy, path: str) -> Any:
    """The value of a dotted path such as ``training.lr``."""
    value: Any = strategy
    for part in path.split("."):
        value = getattr(value, part)
    return value
