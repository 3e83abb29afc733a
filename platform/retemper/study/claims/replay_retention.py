"""Shown when naive fine-tuning leaves larger force errors on the pretraining distribution than replay with original
labels, and replay's own stay within 1.25 of the foundation's; refuted when an interval says otherwise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from retemper.study.contrast import estimate, pairs
from retemper.study.judgement import Judgement, more, not_worse, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "Replay keeps the accuracy on the pretraining distribution"
PAPER = "abstract: replay alone maintains pretraining-distribution accuracy; SPICE: forgetting 1.0, naive about 4000"
KEPT = 1.25  # forgetting ratio that still counts as kept


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    found = pairs(table, "strategy", "replay", "naive")
    own = (
        found.assign(forgetting_ratio_other=found["forgetting_ratio_one"], forgetting_ratio_one=1.0)
        if len(found)
        else found
    )
    return together(
        [
            more(
                "retention forces of naive over those of replay",
                estimate(found, "retention_force_rmse", "log", confidence),
            ),
            not_worse("forgetting of replay", estimate(own, "forgetting_ratio", "log", confidence), math.log(KEPT)),
        ]
    )
