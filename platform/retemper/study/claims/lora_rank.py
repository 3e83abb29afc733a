"""Shown when adapters of the largest rank in the table have smaller force errors on the target than those of the
smallest, and larger ones on the pretraining distribution; refuted when an interval excludes 5 % of either. Settings of
the same scale of the adapters (alpha / rank) are not asked for: alpha is an axis of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.study.contrast import by_value, estimate, pairs
from retemper.study.judgement import Judgement, missing, more, together
from retemper.study.table import finished

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "A larger LoRA rank buys accuracy on the target with forgetting"
PAPER = "ranks 4, 16 and 64 are compared; SPICE: forgetting about 200 at rank 4, about 4000 with every parameter free"
AXIS = "lora.rank"


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    rows = by_value(table, AXIS)
    ranks = sorted({float(r) for r in finished(rows)[AXIS] if r not in ("nan", "None")}) if len(rows) else []
    if len(ranks) < 2:
        return missing(f"no two values of {AXIS}")
    low, high = f"{ranks[0]:g}", f"{ranks[-1]:g}"
    target = pairs(rows, AXIS, high, low, {"strategy": "lora"})
    kept = pairs(rows, AXIS, low, high, {"strategy": "lora"})
    return together(
        [
            more(
                f"target forces, rank {low} over rank {high}", estimate(target, "target_force_rmse", "log", confidence)
            ),
            more(
                f"retention forces, rank {high} over rank {low}",
                estimate(kept, "retention_force_rmse", "log", confidence),
            ),
        ]
    )
