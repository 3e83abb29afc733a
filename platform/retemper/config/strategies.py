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


def _absent(value: Any) -> bool:
    return value is None


class Lora(Section):
    rank: int = Field(4, ge=1)  # of the adapters
    alpha: float = Field(1.0, gt=0)  # adapters are scaled by alpha / rank


class Replay(Section):
    labels: Literal["original", "foundation"]  # the structures' own, or the foundation's (pseudolabels)
    weight: float = Field(1.0, ge=0)  # of the replay loss beside the target's
    batch_size: int = Field(8, ge=1)  # replayed structures in a step, beside the target's
    number: int | None = Field(None, ge=1)  # of the chosen structures, the first so many; null: replay.number of params
    energy_weight: float = Field(1.0, ge=0)  # in the replay loss
    forces_weight: float = Field(10.0, ge=0)  # in the replay loss
    stress_weight: float = Field(1.0, ge=0)  # in the replay loss


class Interpolate(Section):
    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["scope"] = "scope"  # 0: foundation, 1: trained model


class Training(Section):
    lr: float = Field(gt=0)  # learning rate
    ema_decay: float | None = Field(gt=0, lt=1)  # of the moving average of the weights, which is the model; null: none
    clip_grad: float | None = Field(gt=0)  # largest norm of the gradient; null: any
    optimizer: Literal["adam", "adamw"]  # of torch
    weight_decay: float = Field(ge=0)  # of the optimizer
    scheduler: Literal["ReduceLROnPlateau", "ExponentialLR"]  # of the learning rate
    lr_factor: float = Field(gt=0, le=1)  # by which the scheduler lowers it
    scheduler_patience: int = Field(ge=0)  # epochs without improvement before it does
    patience: int = Field(ge=1)  # epochs without improvement before training stops
    batch_size: int | None = Field(ge=1)  # target structures in a step; null: finetune.batch_size of params.yaml


class Loss(Section):
    energy_weight: float = Field(ge=0)  # of energies per atom
    forces_weight: float = Field(ge=0)  # of force components
    stress_weight: float = Field(ge=0)  # of stress components
    huber_delta: float = Field(gt=0)  # where the loss turns from square to linear


class SearchRange(Section):
    """A continuous range (`low`, `high`, `log`) or a list of `choices`.

    `when` maps paths listed earlier to the values for which this range counts.
    """

    low: float | None = None  # smallest value
    high: float | None = None  # largest value
    log: bool = False  # whether it is searched on a log scale
    choices: list[Value] | None = None  # in the place of a range
    when: dict[str, list[Value]] = {}  # paths listed earlier, and the values for which this range counts

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


Ranges = dict[str, list[SearchRange] | SearchRange]  # as they may be written
Search = Annotated[dict[str, list[SearchRange]], BeforeValidator(_as_lists, json_schema_input_type=Ranges)]


class Strategy(Section):
    name: str  # the file's stem
    about: str  # one sentence
    start: Literal["foundation", "random"]  # where the weights start
    freeze: Literal[5, 6] | None  # MACE's --freeze (5: products and readouts train; 6: readouts); null: all train
    lora: Lora | None  # low-rank adapters in every linear layer; null: none
    replay: Replay | None  # the replay head; null: none
    interpolate: Interpolate | None = Field(None, exclude_if=_absent)  # back towards the foundation after training
    training: Training  # optimiser and schedule
    loss: Loss  # MACE's universal loss (Huber, forces with conditional delta)
    search: Search  # what a sweep varies: path, and its range or choices; a list gives alternatives

    @model_validator(mode="after")
    def _possible(self) -> Strategy:
        if self.start == "random" and (self.freeze or self.lora or self.replay or self.interpolate):
            raise ValueError(
                "start: random trains everything from scratch; freeze, lora, replay and interpolate need "
                "start: foundation"
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
