"""Which setting of a sweep is used: the Pareto front, and one rule for the three scopes.

The rule takes the finished trial with the smallest

    log(target error) + lambda * log(retention error)

with lambda = 0 for scope `single-system`, 1 for `family` and 4 for `broad`. In words: one per cent of
retention is worth nothing, one per cent, or four per cent of the target error. Where `holes` is an objective,
holes / 100 is added: one in a hundred curves without a wall is worth one per cent. The rule does not depend on
units or on the worst trials of the sweep, its choice lies on the Pareto front of the two, and from
`single-system` to `broad` the retention error can only fall. Ties go to the earlier trial, so that the
strategy's own setting (the first) is kept unless something is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from retemper.config.settings import WEIGHT
from retemper.config.strategies import Point
from retemper.core.errors import RetemperError
from retemper.records.runs import pareto_front
from retemper.sweep.objectives import HOLES, RETENTION


@dataclass(frozen=True)
class Trial:
    """One setting that was tried."""

    number: int
    state: str  # complete, pruned, failed, running, waiting
    params: Point
    values: dict[str, float] = field(default_factory=dict)  # see `objectives.measure`; complete trials only
    epochs: int = 0
    seconds: float = 0.0
    training: str = ""  # key of the run in .cache/training
    reason: str = ""  # why it failed
    earlier: str = ""  # key of the study that this trial was taken over from


def front(trials: Sequence[Trial], objectives: Sequence[str]) -> list[Trial]:
    """Complete trials that none beats in all objectives, in the order of the first objective."""
    complete = {trial.number: trial for trial in trials if trial.state == "complete"}
    best = pareto_front({n: tuple(trial.values[name] for name in objectives) for n, trial in complete.items()})
    return sorted((complete[n] for n in best), key=lambda trial: trial.values[objectives[0]])


def score(values: dict[str, float], objectives: Sequence[str], scope: str) -> float:
    """The rule's number; smaller is better."""
    total = math.log(max(values[target(objectives)], 1e-12))
    if WEIGHT[scope] > 0:
        total += WEIGHT[scope] * math.log(max(values[RETENTION], 1e-12))
    if HOLES in objectives:
        total += values[HOLES] / 100
    return total


def target(objectives: Sequence[str]) -> str:
    """The target error that counts: the first listed, force error when none is."""
    return next((name for name in objectives if name not in (RETENTION, HOLES)), "target")


def choose(trials: Sequence[Trial], objectives: Sequence[str], scope: str) -> Trial:
    """The trial to use.

    Raises
    ------
    RetemperError
        No trial is complete, or the scope needs retention and it was not measured.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        reasons = sorted({trial.reason.splitlines()[0] for trial in trials if trial.reason})
        raise RetemperError("No trial of the sweep came to an end.", got="; ".join(reasons[:3]) or "no trials")
    if WEIGHT[scope] > 0 and any(RETENTION not in trial.values for trial in complete):
        raise RetemperError(
            f"Scope {scope} weighs retention, which was not measured.",
            fix="name files with more structures in replay.pools, or sweep.scope to single-system",
        )
    return min(complete, key=lambda trial: (score(trial.values, objectives, scope), trial.number))
