"""Shown when models after replay have a repulsive wall on a larger share of dimer and compression curves (robustness
metric short_range) than models after naive fine-tuning, and on at most ten points less than the foundation; refuted
when an interval excludes a gain of five points over naive, or says that replay loses more than ten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retemper.study.paired_effects import estimate, pairs
from retemper.study.verdicts import Judgement, more, not_worse, together

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "Replay keeps the repulsive wall, naive fine-tuning loses it"
PAPER = "abstract: replay alone preserves many-body short-range repulsion; NaCl: holes 7.6 % against 20 % (naive)"
METRIC = "short_range"
LOSS = 10.0  # points


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    run_pairs = pairs(table, "strategy", "naive", "replay")
    foundation_pairs = run_pairs
    if f"{METRIC}_other" in run_pairs:
        foundation_pairs = run_pairs.assign(
            **{
                f"{METRIC}_one": run_pairs[f"{METRIC}_other"],
                f"{METRIC}_other": run_pairs[f"foundation_{METRIC}_other"],
            }
        )
    return together(
        [
            more("curves with a wall, replay minus naive", estimate(run_pairs, METRIC, "points", confidence)),
            not_worse(
                "curves with a wall, foundation minus replay",
                estimate(foundation_pairs, METRIC, "points", confidence),
                LOSS,
            ),
        ]
    )
