"""Shown when foundation, E0s and hyper-parameters (the dotted axes) together account for more of the variance of the
logarithm of the target's errors than the strategy (scratch left out), for energies and for forces: the interval over
systems of the difference of their shares (epsilon squared) is above 0. Refuted when one of them is below 0. The rows
are those of the design that crosses strategies with at least one prerequisite and has the most runs. Shares depend on
the levels that a study chose: a foundation that nobody would take, or a learning rate off by a factor of ten, weighs as
it was asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from retemper.study.table import axes_of, finished_rows
from retemper.study.variance import over_systems, parts
from retemper.study.verdicts import Judgement, Part, missing, together

if TYPE_CHECKING:
    import pandas as pd

    from retemper.study.verdicts import Verdict

CLAIM = "The prerequisites (foundation, E0s, hyper-parameters) outweigh the strategy"
PAPER = "abstract: prerequisites whose impact routinely exceeds that of the fine-tuning strategy itself"
BESIDE = ("system", "size", "strategy")  # axes that are no prerequisites; seeds are the residual


def rows_of(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows to decompose, and the prerequisites that vary in them; no rows where no design crosses them."""
    rows = finished_rows(table)
    rows = rows[rows["strategy"] != "scratch"]
    prerequisites = [axis for axis in axes_of(table) if axis not in (*BESIDE, "seed")]
    best, varied = rows[:0], list[str]()
    for design in sorted({name for names in rows.get("designs", []) for name in str(names).split()}):
        design_rows = rows[[design in str(names).split() for names in rows["designs"]]]
        varying = [axis for axis in prerequisites if design_rows[axis].nunique() > 1]
        if varying and design_rows["strategy"].nunique() > 1 and len(design_rows) > len(best):
            best, varied = design_rows, varying
    return best, varied


def judge(table: pd.DataFrame, confidence: float = 0.95) -> Judgement:
    """The verdict of a table."""
    rows, prerequisites = rows_of(table)
    if rows.empty:
        return missing("no design crosses strategies with foundations, E0s or settings")
    axes = [*BESIDE, *prerequisites]
    conditions, details = [], []
    for quantity, column in (("forces", "target_force_rmse"), ("energies", "target_energy_rmse")):
        positive = rows[rows[column].astype(float) > 0]

        def shares(sample: pd.DataFrame, column: str = column) -> dict[str, float] | None:
            return parts(sample, axes, np.log(sample[column].to_numpy(float)))

        def difference(sample: pd.DataFrame) -> float | None:
            share_by_axis = shares(sample)
            if share_by_axis is None or "strategy" not in share_by_axis:
                return None
            return sum(share_by_axis.get(axis, 0.0) for axis in prerequisites) - share_by_axis["strategy"]

        words = f"share of the variance of {quantity}, prerequisites minus strategy"
        interval = over_systems(positive, difference, confidence)
        if interval is None:
            reason = f"{len(positive)} runs on {positive['system'].nunique()} systems are too few for {len(axes)} axes"
            conditions.append(Part(words, "undecided", "", reason))
            continue
        verdict: Verdict = "shown" if interval.low > 0 else "refuted" if interval.high < 0 else "undecided"
        mean, low, high = (100 * value for value in (interval.value, interval.low, interval.high))
        effect = f"{mean:+.0f} [{low:+.0f}, {high:+.0f}] points"
        conditions.append(
            Part(words, verdict, effect, f"{len(positive)} runs, interval over {interval.groups} systems")
        )
        by_axis = shares(positive) or {}
        details.append(f"{quantity}: " + ", ".join(f"{axis} {100 * share:.0f} %" for axis, share in by_axis.items()))
    return together(conditions, "; ".join(details))
