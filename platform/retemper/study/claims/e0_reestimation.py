"""Shown when fine-tuning from averaged E0s leaves larger energy errors on the target than from re-estimated ones, and
the foundation is further off after the exchange of its E0s; refuted when an interval excludes a factor of 1.05.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.study.paired_effects import estimate, pairs
from retemper.study.verdicts import Judgement, more, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "Re-estimated E0s are better than averaged ones"
PAPER = "abstract: correct E0s are a prerequisite; SPICE: free-atom energies off by 0.33 eV against 3.13 eV"


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    run_pairs = pairs(table, "e0s", "reestimate", "average")
    return together(
        [
            more(
                "energies after training, averaged over re-estimated",
                estimate(run_pairs, "target_energy_rmse", "log", confidence),
            ),
            more(
                "the foundation's energies after the exchange, averaged over re-estimated",
                estimate(run_pairs, "e0_error", "log", confidence),
            ),
        ]
    )
