"""Shown when adapters of the largest rank in the table have smaller force errors on the pretraining distribution than
those of the smallest; refuted when the interval excludes a gain of 5 %. What the rank does to the target is no part of
the claim. Settings of the same scale of the adapters (alpha / rank) are not asked for: alpha is an axis of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.study.paired_effects import by_value, estimate, pairs
from retemper.study.table import finished_rows
from retemper.study.verdicts import Judgement, missing, more, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "LoRA of a larger rank forgets less"
PAPER = "fig. 10a, SPICE: the forgetting ratio falls from rank 4 to rank 64"
AXIS = "lora.rank"


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    rows = by_value(table, AXIS)
    ranks = sorted({float(r) for r in finished_rows(rows)[AXIS] if r not in ("nan", "None")}) if len(rows) else []
    if len(ranks) < 2:
        return missing(f"no two values of {AXIS}")
    low, high = f"{ranks[0]:g}", f"{ranks[-1]:g}"
    run_pairs = pairs(rows, AXIS, high, low, {"strategy": "lora"})
    words = f"retention forces, rank {low} over rank {high}"
    return together([more(words, estimate(run_pairs, "retention_force_rmse", "log", confidence))])
