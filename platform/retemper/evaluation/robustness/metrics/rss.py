"""Holes found by random structure search, by the paper's four criteria."""

from __future__ import annotations

from retemper.evaluation.robustness import holes
from retemper.evaluation.robustness.context import Computed, Context
from retemper.evaluation.robustness.result import Info, Result

INFO = Info(
    title="Random structure search: share of structures that fall into a hole by the paper's four criteria",
    unit="%",
    direction="lower",
    good=2.0,
    bad=40.0,
    cost="relaxations with cells of 4 to 10 atoms, twice or more at 0.1 and 50 GPa",
    reference="arXiv:2606.12704: smallest distance, volume, energy, density",
)
SIZES = holes.SIZES
USES = ("level", "elements", "seed")
plan = holes.plan


def measure(context: Context, results: Computed) -> Result:
    """Share of structures with a hole, over compositions; by criterion and pressure in the details."""
    return holes.measure(context, results, holes.PAPER)
