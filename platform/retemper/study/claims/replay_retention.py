"""Shown when naive fine-tuning leaves larger force errors on the pretraining distribution than replay with original
labels, and replay's own stay within 1.25 of the foundation's; refuted when an interval says otherwise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from retemper.study.paired_effects import estimate, pairs
from retemper.study.table import CELL
from retemper.study.verdicts import Judgement, more, not_worse, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "Replay keeps the accuracy on the pretraining distribution"
PAPER = "abstract: replay alone maintains pretraining-distribution accuracy"
ERROR = "retention_force_rmse"
KEPT = 1.25  # forgetting ratio that still counts as kept


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    run_pairs = pairs(table, "strategy", "replay", "naive")
    foundation_pairs = run_pairs.copy()  # replay beside its own foundation
    for name in (f"{ERROR}_one", f"{ERROR}{CELL}_one"):
        if f"foundation_{name}" in run_pairs:
            foundation_pairs[name], foundation_pairs[f"{name.removesuffix('_one')}_other"] = (
                run_pairs[f"foundation_{name}"],
                run_pairs[name],
            )
    return together(
        [
            more(
                "retention forces of naive over those of replay",
                estimate(run_pairs, ERROR, "log", confidence),
            ),
            not_worse("forgetting of replay", estimate(foundation_pairs, ERROR, "log", confidence), math.log(KEPT)),
        ]
    )
