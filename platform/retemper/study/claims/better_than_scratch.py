"""Shown when training the same architecture from random weights leaves larger force and energy errors than naive
fine-tuning, by the interval of the ratio; refuted when the interval excludes a gain of 5 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.study.paired_effects import estimate, pairs
from retemper.study.verdicts import Judgement, more, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "A fine-tuned model is more accurate on the target than one trained from scratch"
PAPER = "abstract: once the prerequisites are met, most strategies consistently surpass models trained from scratch"


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    found = pairs(table, "strategy", "naive", "scratch")
    return together(
        [
            more(f"{what} of scratch over those of naive", estimate(found, column, "log", confidence))
            for what, column in (("forces", "target_force_rmse"), ("energies", "target_energy_rmse"))
        ]
    )
