"""Trials as rows of a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from retemper.config.strategies import in_words
from retemper.sweep.choice import Trial, target
from retemper.sweep.objectives import HOLES, RETENTION
from retemper.sweep.space import Space


def header(objectives: Sequence[str], space: Space) -> str:
    """Titles of the columns of `line`."""
    names = "".join(f"{path.removeprefix('training.'):>{width(path)}s}" for path in space.ranges)
    titles = "".join(f"{name:>12s}" for name in columns(objectives))
    return f"{'trial':>6s} {'ended':9s}{'epochs':>7s}{'time':>8s}{titles}{names}"


def line(trial: Trial, objectives: Sequence[str], space: Space, mark: str = "") -> str:
    """One trial as a row of the table."""

    def number(name: str) -> str:
        return f"{trial.values[name]:.4g}" if name in trial.values else "-"

    settings = "".join(
        f"{in_words(trial.params[path]) if path in trial.params else '-':>{width(path)}s}" for path in space.ranges
    )
    values = "".join(f"{number(name):>12s}" for name in columns(objectives))
    row = f"{trial.number:6d} {trial.state:9s}{trial.epochs:7d}{trial.seconds:7.0f}s{values}{settings}{mark}"
    return row + (f"\n       {trial.reason.splitlines()[0]}" if trial.reason else "")


def columns(objectives: Sequence[str]) -> list[str]:
    """What is shown of a trial: target, retention and, where it is an objective, holes."""
    return [target(objectives), RETENTION, *(name for name in objectives if name == HOLES)]


def width(path: str) -> int:
    """Width of the column of a setting."""
    return max(10, len(path.removeprefix("training.")) + 2)
