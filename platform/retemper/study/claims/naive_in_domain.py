"""Shown when naive fine-tuning's force errors on the target exceed those of no other strategy (scratch left out) by
more than 5 %, each interval saying so; refuted when naive is worse than one of them by more than 5 %, with intervals
widened for the number of strategies (Bonferroni). At least three others must have been run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.study.paired_effects import estimate, pairs
from retemper.study.table import finished_rows
from retemper.study.verdicts import Judgement, missing, not_worse, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "Naive fine-tuning is the most accurate strategy on the target, or within 5 % of it"
PAPER = "abstract: naive fine-tuning offers the best convergence for single-system applications"
OTHERS = 3


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    strategies = sorted(set(finished_rows(table)["strategy"]) - {"naive", "scratch"})
    pairs_by_strategy = {strategy: pairs(table, "strategy", strategy, "naive") for strategy in strategies}
    pairs_by_strategy = {strategy: run_pairs for strategy, run_pairs in pairs_by_strategy.items() if len(run_pairs)}
    if len(pairs_by_strategy) < OTHERS:
        return missing(f"naive is compared with {len(pairs_by_strategy)} strategies, {OTHERS} are needed")
    wide = 1 - (1 - confidence) / len(pairs_by_strategy)
    parts = []
    for strategy, run_pairs in pairs_by_strategy.items():
        words = f"target forces of naive over those of {strategy}"
        narrow = not_worse(words, estimate(run_pairs, "target_force_rmse", "log", confidence))
        parts.append(
            narrow
            if narrow.verdict == "shown"
            else not_worse(words, estimate(run_pairs, "target_force_rmse", "log", wide))
        )
    return together(parts)
