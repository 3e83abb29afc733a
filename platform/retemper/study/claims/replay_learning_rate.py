"""Shown when a learning rate of ten times replay's own raises the force error of the replay head on the pretraining
distribution, while the target's does not grow by more than 5 %, so that the target alone would not show it; refuted
when an interval excludes 5 % of the one, or shows more than 5 % of the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.study.paired_effects import by_value, estimate, pairs
from retemper.study.verdicts import Judgement, missing, more, not_worse, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "Too high a learning rate ruins the replay head, and the target does not show it"
PAPER = "table 9, LPSC, target and replay head in meV/A: 18.4 and 23.9 at 1e-4, 18.1 and 217.6 at 1e-3"
AXIS = "training.lr"
OWN, HIGH = "0.0001", "0.001"


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    rows = by_value(table, AXIS)
    if not len(rows):
        return missing(f"{AXIS} is no axis")
    run_pairs = pairs(rows, AXIS, OWN, HIGH, {"strategy": "replay"})
    return together(
        [
            more(f"replay head, {HIGH} over {OWN}", estimate(run_pairs, "replay_head_force_rmse", "log", confidence)),
            not_worse(f"target forces, {HIGH} over {OWN}", estimate(run_pairs, "target_force_rmse", "log", confidence)),
        ]
    )
