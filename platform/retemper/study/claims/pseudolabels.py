"""Shown when replay with the foundation's labels is not worse by more than 10 % than replay with the original ones, on
the pretraining distribution and on the target; refuted when an interval lies above 10 %.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from retemper.study.paired_effects import estimate, pairs
from retemper.study.verdicts import Judgement, not_worse, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "Pseudolabels are as good for replay as the original labels"
PAPER = "abstract: replay with either original or pseudolabelled data preserves robustness; SPICE: forgetting 1.3, 1.0"
MARGIN = math.log(1.1)


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    run_pairs = pairs(table, "strategy", "replay", "pseudolabel-replay")
    return together(
        [
            not_worse(f"{errors}, pseudolabels over labels", estimate(run_pairs, column, "log", confidence), MARGIN)
            for errors, column in (("retention forces", "retention_force_rmse"), ("target forces", "target_force_rmse"))
        ]
    )
