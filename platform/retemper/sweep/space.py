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
            one = self.active(path, values)
            if one is None:
                continue
            if one.choices is not None:
                values[path] = trial.suggest_categorical(path, one.choices)
            else:
                values[path] = trial.suggest_float(path, one.low, one.high, log=one.log)

    def active(self, path: str, values: Point) -> SearchRange | None:
        """The range of `path` that counts beside `values` (of the paths before it); `None`: the default stays."""
        for one in self.ranges[path]:
            if all(values.get(other, self.defaults[other]) in allowed for other, allowed in one.when.items()):
                return one
        return None

    def complete(self, values: Point) -> Point | None:
        """`values` with defaults for what is missing, as a point of the space; `None` when it lies outside."""
        point: Point = {}
        for path in self.ranges:
            one = self.active(path, point)
            if one is None:
                continue
            value = values.get(path, self.defaults[path])
            if not contains(one, value):
                return None
            point[path] = value
        others = {path: value for path, value in values.items() if path not in point}
        return None if any(value != self.defaults.get(path, ...) for path, value in others.items()) else point

    def default(self) -> Point:
        """The strategy's own settings as a point of the space."""
        point = self.complete({})
        assert point is not None  # `of` widens the ranges to hold it
        return point

    def union(self, path: str) -> SearchRange:
        """The alternatives of `path` as one range."""
        first = self.ranges[path][0]
        if first.choices is not None:
            return first
        lows, highs = [one.low for one in self.ranges[path]], [one.high for one in self.ranges[path]]
        return SearchRange(low=min(filter(None, lows), default=0.0), high=max(filter(None, highs)), log=first.log)


def contains(one: SearchRange, value: Value) -> bool:
    """Whether a range holds a value."""
    if one.choices is not None:
        return value in one.choices
    assert one.low is not None and one.high is not None
    return isinstance(value, (int, float)) and one.low <= value <= one.high


def of(strategy: Strategy, settings: Settings, n_train: int, n_replay: int) -> Space:
    """The space of `strategy`, narrowed to what the data allow and widened to hold its own settings.

    Choices of structures above `n_train` (batch size) or from `n_replay` up (replay set) are left out,
    and so is the batch size that null stands for already.
    """
    ranges: dict[str, list[SearchRange]] = {}
    defaults = {path: value_at(strategy, path) for path in strategy.search}
    for path, alternatives in strategy.search.items():
        if path == "training.batch_size":
            alternatives = [
                _only(one, lambda n: n is None or (n <= n_train and n != settings.finetune.batch_size))
                for one in alternatives
            ]
        if path == "replay.number":
            alternatives = [_only(one, lambda n: n is None or n < n_replay) for one in alternatives]
        ranges[path] = alternatives
    space = Space(ranges, defaults)
    point: Point = {}
    for path in ranges:
        one = space.active(path, point)
        if one is not None:
            ranges[path] = [_widened(other, defaults[path]) if other is one else other for other in ranges[path]]
            point[path] = defaults[path]
    return space


def _only(one: SearchRange, keep: Callable[[Any], bool]) -> SearchRange:
    return one if one.choices is None else one.model_copy(update={"choices": [c for c in one.choices if keep(c)]})


def _widened(one: SearchRange, value: Value) -> SearchRange:
    if contains(one, value):
        return one
    if one.choices is not None:
        return one.model_copy(update={"choices": [value, *one.choices]})
    assert one.low is not None and one.high is not None and isinstance(value, (int, float))
    return one.model_copy(update={"low": min(one.low, value), "high": max(one.high, value)})
