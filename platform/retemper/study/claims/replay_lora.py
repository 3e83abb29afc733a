"""Shown when replay with adapters leaves larger force errors on the target than replay with all parameters under the
same (foundation's) labels, and than adapters without replay; refuted when an interval excludes a loss of 5 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.study.paired_effects import estimate, pairs
from retemper.study.verdicts import Judgement, more, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "Replay together with LoRA is over-regularised: it is less accurate on the target than either alone"
PAPER = "on the combination of replay and LoRA: over-regularised"


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    return together(
        [
            more(
                f"target forces of replay-lora over those of {other}",
                estimate(pairs(table, "strategy", other, "replay-lora"), "target_force_rmse", "log", confidence),
            )
            for other in ("pseudolabel-replay", "lora")
        ]
    )
