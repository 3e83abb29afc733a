"""Trials as rows of a table on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from retemper.sweep.front import Trial, target
from retemper.sweep.objectives import RETENTION
from retemper.sweep.output import text
from retemper.sweep.space import Space


def header(objectives: Sequence[str], space: Space) -> str:
    """Titles of the columns of `line`."""
    names = "".join(f"{path.removeprefix('training.'):>{width(path)}s}" for path in space.ranges)
    return f"{'trial':>6s} {'ended':9s}{'epochs':>7s}{'time':>8s}{target(objectives):>12s}{RETENTION:>11s}{names}"


def line(trial: Trial, objectives: Sequence[str], space: Space, mark: str = "") -> str:
    """One trial as a row of the table."""

    def number(name: str) -> str:
        return f"{trial.values[name]:.4g}" if name in trial.values else "-"

    settings = "".join(
        f"{text(trial.params[path]) if path in trial.params else '-':>{width(path)}s}" for path in space.ranges
    )
    row = (
        f"{trial.number:6d} {trial.state:9s}{trial.epochs:7d}{trial.seconds:7.0f}s{number(target(objectives)):>12s}"
        f"{number(RETENTION):>11s}{settings}{mark}"
    )
    return row + (f"\n       {trial.reason.splitlines()[0]}" if trial.reason else "")


def width(path: str) -> int:
    """Width of the column of a setting."""
    return max(10, len(path.removeprefix("training.")) + 2)
