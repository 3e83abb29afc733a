"""Two models' robustness: comparable or not, and the difference by the same structures. No MLflow here."""

from __future__ import annotations

from retemper.evaluation.robustness import identity, units
from retemper.evaluation.statistics import FEWEST_GROUPS, Interval, two_sided
from retemper.registry.measurements import Measured

PREFIX = "robustness."


def setup_difference(model: Measured, reference: Measured, metric: str) -> str:
    """What of `metric` was measured otherwise for `reference`, in words; "" where nothing was."""
    start = f"{metric}."
    settings, reference_settings = (
        {key.removeprefix(start): value for key, value in side.identity.items() if key.startswith(start)}
        for side in (model, reference)
    )
    return identity.difference(settings, reference_settings)


def paired_difference(model: Measured, reference: Measured, metric: str, confidence: float) -> Interval | None:
    """model - reference over groups of the same structures, bounds with `confidence`; `None` where none are kept."""
    model_units, reference_units = (side.units.get(metric.removeprefix(PREFIX), []) for side in (model, reference))
    return (
        units.paired_difference(model_units, reference_units, confidence) if model_units and reference_units else None
    )


def cells(first: Measured, second: Measured, metric: str) -> list[str]:
    """Difference second - first, its 95 % interval and a verdict; empty cells where structures are not kept."""
    if first.number(metric).value is None or second.number(metric).value is None:
        return ["", "", ""]
    difference = setup_difference(second, first, metric)
    if difference:
        return ["", "", f"measured otherwise: {difference}"]
    interval = paired_difference(second, first, metric, two_sided(0.95))
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
