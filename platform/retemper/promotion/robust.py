"""Two models' robustness: comparable or not, and the difference by the same structures. No MLflow here."""

from __future__ import annotations

from retemper.evaluation.robustness import identity, units
from retemper.evaluation.statistics import FEWEST_GROUPS, Interval, two_sided
from retemper.registry.measurements import Measured

PREFIX = "robustness."


def otherwise(ours: Measured, theirs: Measured, metric: str) -> str:
    """What of `metric` was measured otherwise for `theirs`, in words; "" where nothing was."""
    start = f"{metric}."
    own, other = (
        {key.removeprefix(start): value for key, value in one.identity.items() if key.startswith(start)}
        for one in (ours, theirs)
    )
    return identity.difference(own, other)


def paired(ours: Measured, theirs: Measured, metric: str, confidence: float) -> Interval | None:
    """ours - theirs over groups of the same structures, bounds with `confidence`; `None` where they are not kept."""
    own, other = (one.units.get(metric.removeprefix(PREFIX), []) for one in (ours, theirs))
    return units.paired(own, other, confidence) if own and other else None


def cells(first: Measured, second: Measured, metric: str) -> list[str]:
    """Difference second - first, its 95 % interval and a verdict; empty cells where structures are not kept."""
    if first.number(metric).value is None or second.number(metric).value is None:
        return ["", "", ""]
    differs = otherwise(second, first, metric)
    if differs:
        return ["", "", f"measured otherwise: {differs}"]
    found = paired(second, first, metric, two_sided(0.95))
    if found is None:
        return ["", "", ""]
    word = "differ" if found.low > 0 or found.high < 0 else "not distinguished"
    if found.groups < FEWEST_GROUPS:
        word = f"{found.groups} group(s): too few to tell"
    unit = second.number(metric).unit
    texts = [f"{found.value:+.3g} {unit}".rstrip(), f"{found.low:+.3g} to {found.high:+.3g} ({found.groups} groups)"]
    return [*texts, word]
