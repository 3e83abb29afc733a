"""Holes found by random structure search, by the paper's criteria or a ratio of distance to radii below 0.6."""

from __future__ import annotations

from retemper.evaluation.robustness import holes
from retemper.evaluation.robustness.context import Computed, Context
from retemper.evaluation.robustness.result import Info, Result

INFO = Info(
    title="Random structure search: the same, or smallest distance below 0.6 of the sum of covalent radii",
    unit="%",
    direction="lower",
    good=2.0,
    bad=40.0,
    cost="none beyond rss",
    reference="benchmarks/rss_referee.py; stricter than arXiv:2606.12704, whose limit is 0.5",
)
SIZES = holes.SIZES
USES = ("level", "elements", "seed")
plan = holes.plan


def measure(context: Context, results: Computed) -> Result:
    """Share of structures with a hole, over compositions; by criterion and pressure in the details."""
    return holes.measure(context, results, holes.STRICT)
