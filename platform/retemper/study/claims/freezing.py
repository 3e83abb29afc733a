"""Shown when training the readouts alone (freeze-6) leaves larger force errors on the target than training products
and readouts (freeze-5), and smaller ones on the pretraining distribution; refuted when an interval excludes 5 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.study.paired_effects import estimate, pairs
from retemper.study.verdicts import Judgement, more, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "Freezing the products too (6 against 5) costs accuracy on the target and keeps more"
PAPER = "NaCl, random structure search at 0.1 and 50 GPa: holes 49 and 74 % with freeze-5, 9 and 13 % with freeze-6"


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    five, six = pairs(table, "strategy", "freeze-5", "freeze-6"), pairs(table, "strategy", "freeze-6", "freeze-5")
    return together(
        [
            more(
                "target forces of freeze-6 over those of freeze-5",
                estimate(five, "target_force_rmse", "log", confidence),
            ),
            more(
                "retention forces of freeze-5 over those of freeze-6",
                estimate(six, "retention_force_rmse", "log", confidence),
            ),
        ]
    )
