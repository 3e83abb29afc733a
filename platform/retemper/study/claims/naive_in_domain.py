"""Shown when naive fine-tuning's force errors on the target exceed those of no other strategy (scratch left out) by
more than 5 %, each interval saying so; refuted when naive is worse than one of them by more than 5 %, with intervals
widened for the number of strategies (Bonferroni). At least three others must have been run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.study.paired_effects import estimate, pairs
from retemper.study.table import finished
from retemper.study.verdicts import Judgement, missing, not_worse, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "Naive fine-tuning is the most accurate strategy on the target, or within 5 % of it"
PAPER = "abstract: naive fine-tuning offers the best convergence for single-system applications"
OTHERS = 3


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    others = sorted(set(finished(table)["strategy"]) - {"naive", "scratch"})
    compared = {other: pairs(table, "strategy", other, "naive") for other in others}
    compared = {other: found for other, found in compared.items() if len(found)}
    if len(compared) < OTHERS:
        return missing(f"naive is compared with {len(compared)} strategies, {OTHERS} are needed")
    wide = 1 - (1 - confidence) / len(compared)
    parts = []
    for other, found in compared.items():
        words = f"target forces of naive over those of {other}"
        narrow = not_worse(words, estimate(found, "target_force_rmse", "log", confidence))
        parts.append(
            narrow if narrow.verdict == "shown" else not_worse(words, estimate(found, "target_force_rmse", "log", wide))
        )
    return together(parts)
