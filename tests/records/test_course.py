"""What is said of a training's course: not converged, and a replay head that loses accuracy."""

from __future__ import annotations

import pytest
from run_files import outcome

from retemper.records import course


def history(*replay: float) -> list[dict[str, float]]:
    return [{"epoch": float(k), "valid_replay.force_rmse": value} for k, value in enumerate(replay)]


@pytest.mark.parametrize("converged", [True, False])
def test_a_training_that_has_not_converged_is_named(converged: bool) -> None:
    assert len(course.comments([], outcome(converged=converged))) == (not converged)


def test_a_rising_replay_head_is_named_with_its_numbers() -> None:
    """Up to the best epoch alone: what follows is not in the model."""
    assert course.replay_rise(history(40.0, 44.0, 60.0, 400.0), 2) == (40.0, 60.0)
    assert course.replay_rise(history(40.0, 41.0, 41.5, 400.0), 2) is None
    (text,) = course.comments(history(40.0, 44.0, 60.0, 400.0), outcome(best_epoch=2, epochs=4))
    assert "40.0" in text and "60.0" in text
