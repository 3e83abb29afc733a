"""What the course of a training says of its result: whether it had converged, and what the replay head lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RISE = 1.05  # the replay head's force error at the best epoch over its lowest: above this it is worth a word


def converged(outcome: Mapping[str, Any]) -> bool:
    """Whether an epoch after the best one was worse; else more epochs would have gone on improving."""
    return int(outcome["best_epoch"]) + 1 < int(outcome["epochs"])


def replay_rise(history: Sequence[Mapping[str, float]], outcome: Mapping[str, Any]) -> tuple[float, float] | None:
    """The replay head's lowest force RMSE up to the best epoch and that at the best epoch (meV/A), where it rose."""
    column, best = "valid_replay.force_rmse", int(outcome["best_epoch"])
    errors = [float(row[column]) for row in history if column in row and row["epoch"] <= best]
    if not errors or errors[-1] <= RISE * min(errors):
        return None
    return min(errors), errors[-1]


def comments(history: Sequence[Mapping[str, float]], outcome: Mapping[str, Any]) -> list[str]:
    """Sentences for the closing line and the report; empty where there is nothing to say."""
    said = []
    if "best_epoch" in outcome and not converged(outcome):
        said.append("not converged: the best epoch is the last (raise finetune.epochs)")
    rise = replay_rise(history, outcome) if "best_epoch" in outcome else None
    if rise is not None:
        said.append(
            f"the replay head's force error rose from {rise[0]:.1f} to {rise[1]:.1f} meV/A (raise replay.weight)"
        )
    return said
