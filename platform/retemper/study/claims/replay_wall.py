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
    found = pairs(table, "strategy", "naive", "replay")
    own = found
    if f"{METRIC}_other" in found:
        own = found.assign(
            **{f"{METRIC}_one": found[f"{METRIC}_other"], f"{METRIC}_other": found[f"foundation_{METRIC}_other"]}
        )
    return together(
        [
            more("curves with a wall, replay minus naive", estimate(found, METRIC, "points", confidence)),
            not_worse("curves with a wall, foundation minus replay", estimate(own, METRIC, "points", confidence), LOSS),
        ]
    )
