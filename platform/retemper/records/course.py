"""What the course of a training says of its result: whether it had converged, and what the replay head lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retemper.records.training import Course

RISE = 1.05  # the replay head's force error at the best epoch over its lowest: above this it is worth a word


def replay_rise(history: Sequence[Mapping[str, float]], best_epoch: int) -> tuple[float, float] | None:
    """The replay head's lowest force RMSE up to the best epoch and that at the best epoch (meV/A), where it rose."""
    column = "valid_replay.force_rmse"
    errors = [row[column] for row in history if column in row and row["epoch"] <= best_epoch]
    if not errors or errors[-1] <= RISE * min(errors):
        return None
    return min(errors), errors[-1]


def comments(history: Sequence[Mapping[str, float]], course: Course) -> list[str]:
    """Sentences for the closing line and the report; empty where there is nothing to say."""
    sentences = []
    if not course.converged:
        sentences.append("not converged: the best epoch is the last (raise finetune.epochs)")
    rise = replay_rise(history, course.best_epoch)
    if rise is not None:
        sentences.append(
            f"the replay head's force error rose from {rise[0]:.1f} to {rise[1]:.1f} meV/A (raise replay.weight)"
        )
    return sentences
