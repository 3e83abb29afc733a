"""What the course of a training says of its result: whether it had converged, and what the replay head lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retemper.records.training import Course

BESIDE = {"valid_retention.force_rmse": "retention", "valid_drift.force_rmse": "drift"}  # columns of walk.csv
RISE = 1.05  # the replay head's force error at the best epoch over its lowest: above this it is worth a word


def replay_rise(history: Sequence[Mapping[str, float]], best_epoch: int) -> tuple[float, float] | None:
    """The replay head's lowest force RMSE up to the best epoch and that at the best epoch (meV/A), where it rose."""
    column = "valid_replay.force_rmse"
    errors = [row[column] for row in history if column in row and row["epoch"] <= best_epoch]
    if not errors or errors[-1] <= RISE * min(errors):
        return None
    return min(errors), errors[-1]


def along_the_line(walk: Sequence[Mapping[str, float]]) -> list[str]:
    """What was gained and given on the way from the trained model to the place on the line that is kept."""
    if not walk:
        return []
    start, end = walk[0], walk[-1]
    (place,) = [row for row in walk if row["chosen"]]
    beside = next(name for name in place if name in BESIDE)
    parts = [
        f"{BESIDE.get(name, 'target')} {place[name]:.1f} meV/A (trained {end[name]:.1f}, foundation {start[name]:.1f})"
        for name in ("valid.force_rmse", beside)
    ]
    sentences = [f"kept at alpha {place['alpha']:g} between foundation (0) and trained (1): {', '.join(parts)}"]
    top = max(row["valid.force_rmse"] for row in walk)
    if top > RISE * max(start["valid.force_rmse"], end["valid.force_rmse"]):
        sentences.append(f"a barrier lies on the line: the target's force error rises to {top:.1f} meV/A")
    return sentences


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
