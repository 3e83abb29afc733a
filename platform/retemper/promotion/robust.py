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
        {key.removeprefix(start): value for key, value in model.identity.items() if key.startswith(start)}
        for model in (ours, theirs)
    )
    return identity.difference(own, other)


def paired(ours: Measured, theirs: Measured, metric: str, confidence: float) -> Interval | None:
    """ours - theirs over groups of the same structures, bounds with `confidence`; `None` where they are not kept."""
    own, other = (model.units.get(metric.removeprefix(PREFIX), []) for model in (ours, theirs))
    return units.paired(own, other, confidence) if own and other else None


def cells(first: Measured, second: Measured, metric: str) -> list[str]:
    """Difference second - first, its 95 % interval and a verdict; empty cells where structures are not kept."""
    if first.number(metric).value is None or second.number(metric).value is None:
        return ["", "", ""]
    differs = otherwise(second, first, metric)
    if differs:
        return ["", "", f"measured otherwise: {differs}"]
    interval = paired(second, first, metric, two_sided(0.95))
    if interval is None:
        return ["", "", ""]
    word = "differ" if interval.low > 0 or interval.high < 0 else "not distinguished"
    if interval.groups < FEWEST_GROUPS:
        word = f"{interval.groups} group(s): too few to tell"
    unit = second.number(metric).unit
    texts = [
        f"{interval.value:+.3g} {unit}".rstrip(),
        f"{interval.low:+.3g} to {interval.high:+.3g} ({interval.groups} groups)",
    ]
    return [*texts, word]
