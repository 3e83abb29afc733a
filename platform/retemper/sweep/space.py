"""What a sweep of one strategy varies: its ``search`` as a space that Optuna walks, default included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from retemper.config.settings import Settings
from retemper.config.strategies import Point, SearchRange, Strategy, Value, value_at


@dataclass(frozen=True)
class Space:
    """Ranges by dotted path, in the order in which they are asked; picklable, and free of Optuna."""

    ranges: dict[str, list[SearchRange]]
    defaults: Point

    def __call__(self, trial: Any) -> None:
        """Ask an Optuna trial for every value that counts (define-by-run)."""
        values: Point = {}
        for path in self.ranges:
            search_range = self.active(path, values)
            if search_range is None:
                continue
            if search_range.choices is not None:
                values[path] = trial.suggest_categorical(path, search_range.choices)
            else:
                values[path] = trial.suggest_float(path, search_range.low, search_range.high, log=search_range.log)

    def active(self, path: str, values: Point) -> SearchRange | None:
        """The range of `path` that counts beside `values` (of the paths before it); `None`: the default stays."""
        for search_range in self.ranges[path]:
            if all(
                values.get(setting, self.defaults[setting]) in allowed for setting, allowed in search_range.when.items()
            ):
                return search_range
        return None

    def complete(self, values: Point) -> Point | None:
        """`values` with defaults for what is missing, as a point of the space; `None` when it lies outside."""
        point: Point = {}
        for path in self.ranges:
            search_range = self.active(path, point)
            if search_range is None:
                continue
            value = values.get(path, self.defaults[path])
            if not contains(search_range, value):
                return None
            point[path] = value
        outside = {path: value for path, value in values.items() if path not in point}
        return None if any(value != self.defaults.get(path, ...) for path, value in outside.items()) else point

    def default(self) -> Point:
        """The strategy's own settings as a point of the space."""
        point = self.complete({})
        assert point is not None  # `build` widens the ranges to hold it
        return point

    def union(self, path: str) -> SearchRange:
        """The alternatives of `path` as one range."""
        first = self.ranges[path][0]
        if first.choices is not None:
            return first
        lows, highs = (
            [alternative.low for alternative in self.ranges[path]],
            [alternative.high for alternative in self.ranges[path]],
        )
        return SearchRange(low=min(filter(None, lows), default=0.0), high=max(filter(None, highs)), log=first.log)


def contains(search_range: SearchRange, value: Value) -> bool:
    """Whether a range holds a value."""
    if search_range.choices is not None:
        return value in search_range.choices
    assert search_range.low is not None and search_range.high is not None
    return isinstance(value, (int, float)) and search_range.low <= value <= search_range.high


def build(strategy: Strategy, settings: Settings, n_train: int, n_replay: int) -> Space:
    """The space of `strategy`, narrowed to what the data allow and widened to hold its own settings.

    Choices of structures above `n_train` (batch size) or from `n_replay` up (replay set) are left out,
    and so is the batch size that null stands for already.
    """
    ranges: dict[str, list[SearchRange]] = {}
    defaults = {path: value_at(strategy, path) for path in strategy.search}
    for path, alternatives in strategy.search.items():
        if path == "training.batch_size":
            alternatives = [
                _only(search_range, lambda n: n is None or (n <= n_train and n != settings.finetune.batch_size))
                for search_range in alternatives
            ]
        if path == "replay.number":
            alternatives = [_only(search_range, lambda n: n is None or n < n_replay) for search_range in alternatives]
        ranges[path] = alternatives
    space = Space(ranges, defaults)
    point: Point = {}
    for path in ranges:
        search_range = space.active(path, point)
        if search_range is not None:
            ranges[path] = [
                _widen(alternative, defaults[path]) if alternative is search_range else alternative
                for alternative in ranges[path]
            ]
            point[path] = defaults[path]
    return space


def _only(search_range: SearchRange, keep: Callable[[Any], bool]) -> SearchRange:
    return (
        search_range
        if search_range.choices is None
        else search_range.model_copy(update={"choices": [c for c in search_range.choices if keep(c)]})
    )


def _widen(search_range: SearchRange, value: Value) -> SearchRange:
    if contains(search_range, value):
        return search_range
    if search_range.choices is not None:
        return search_range.model_copy(update={"choices": [value, *search_range.choices]})
    assert search_range.low is not None and search_range.high is not None and isinstance(value, (int, float))
    return search_range.model_copy(update={"low": min(search_range.low, value), "high": max(search_range.high, value)})
