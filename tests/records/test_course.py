"""What is said of a training's course: not converged, and a replay head that loses accuracy."""

from __future__ import annotations

from typing import Any

import pytest

from retemper.records import course


def history(*replay: float) -> list[dict[str, float]]:
    return [{"epoch": float(k), "valid_replay.force_rmse": value} for k, value in enumerate(replay)]


@pytest.mark.parametrize(("best", "epochs", "said"), [(9, 10, 1), (8, 10, 0), (-1, 0, 1)])
def test_the_last_epoch_is_the_best(best: int, epochs: int, said: int) -> None:
    outcome: dict[str, Any] = {"best_epoch": best, "epochs": epochs}
    assert course.converged(outcome) is not bool(said)
    assert len(course.comments([], outcome)) == said


def test_a_rising_replay_head_is_named_with_its_numbers() -> None:
    """Up to the best epoch alone: what follows is not in the model."""
    outcome = {"best_epoch": 2, "epochs": 4}
    assert course.replay_rise(history(40.0, 44.0, 60.0, 400.0), outcome) == (40.0, 60.0)
    assert course.replay_rise(history(40.0, 41.0, 41.5, 400.0), outcome) is None
    (text,) = course.comments(history(40.0, 44.0, 60.0, 400.0), outcome)
    assert "40.0" in text and "60.0" in text
