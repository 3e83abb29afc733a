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
    run_pairs = pairs(table, "strategy", "naive", "scratch")
    return together(
        [
            more(f"{quantity} of scratch over those of naive", estimate(run_pairs, column, "log", confidence))
            for quantity, column in (("forces", "target_force_rmse"), ("energies", "target_energy_rmse"))
        ]
    )
