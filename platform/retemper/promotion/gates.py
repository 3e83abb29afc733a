"""Gates: conditions as data, and what they say of one model. Nothing passes by default. No MLflow here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retemper.promotion import compare
from retemper.promotion.compare import Interval, Spread
from retemper.promotion.measures import Errors, Measured, Number
from retemper.settings import Gate

# Metrics that are ratios to one number for all models are compared by what is above the line.
SAME_AS = {
    "forgetting_ratio": "retention.force_rmse",
    "forgetting_ratio_replay_head": "retention_replay_head.force_rmse",
}
# Which hash of `evaluate.identity` names the frames of a set.
FRAMES_OF = {"target": "target", "retention": "retention", "retention_replay_head": "retention"}


@dataclass(frozen=True)
class Outcome:
    """What one gate says of one model."""

    metric: str
    rule: str  # in words
    absolute: bool  # a limit of its own, not a comparison
    passed: bool
    value: float | None  # the model's, with its interval
    low: float | None
    high: float | None
    level: float  # of that interval
    unit: str
    limit: float | None  # of value, or of the ratio or difference to the reference
    compared: dict[str, float] | None  # ratio or difference: value, low, high; the wider of frames and seeds
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data; infinite bounds become `None`."""
        content = asdict(self)
        if self.compared is not None:
            content["compared"] = {k: v if abs(v) < 1e300 else None for k, v in self.compared.items()}
        return content


@dataclass(frozen=True)
class References:
    """What candidates are compared with.

    `champion` is `None` when there is none yet. Where there is one that cannot be compared with,
    `obstacle` says why, and every gate that needs it fails.
    """

    foundation: Measured | None
    champion: Measured | None
    obstacle: str | None = None


Made = Callable[[bool, str, Interval | None], Outcome]


def judge(
    candidate: Measured,
    gates: Sequence[Gate],
    references: References,
    recipes: Mapping[str, Measured],
    *,
    resamples: int,
    candidates: int = 1,
) -> list[Outcome]:
    """Every gate's outcome for one candidate.

    Parameters
    ----------
    recipes
        One model of every strategy of this run: their seeds say how far errors scatter over seeds.
    candidates
        How many models are judged together. The confidence of the relative gates is raised
        so that the chance that any of them passes wrongly stays the same (Bonferroni).
    """
    return [
        _relative(candidate, gate, references, recipes, resamples, candidates)
        if gate.relative_to
        else _absolute(candidate, gate)
        for gate in gates
    ]


def passed(outcomes: Sequence[Outcome], *, absolute_only: bool = False) -> bool:
    """Whether all (absolute) gates hold. Without a single absolute gate the answer is no."""
    kept = [outcome for outcome in outcomes if outcome.absolute or not absolute_only]
    return any(outcome.absolute for outcome in kept) and all(outcome.passed for outcome in kept)


def _absolute(candidate: Measured, gate: Gate) -> Outcome:
    number = candidate.number(gate.metric)
    limit = gate.max if gate.max is not None else gate.min
    assert limit is not None
    sign, word = ("≤", "above") if gate.max is not None else ("≥", "below")
    if number.value is None:
        good, reason = False, f"missing: {number.reason}"
    else:
        good = number.value <= limit if gate.max is not None else number.value >= limit
        reason = "holds" if good else f"{number.value:.4g} is {word} {limit:g}"
    rule = f"{sign} {limit:g} {number.unit}".rstrip()
    return _outcome(gate, rule, number, limit, good, reason)


def _outcome(
    gate: Gate, rule: str, number: Number, limit: float, good: bool, reason: str, compared: Interval | None = None
) -> Outcome:
    return Outcome(
        metric=gate.metric,
        rule=rule,
        absolute=gate.relative_to is None,
        passed=good,
        value=number.value,
        low=number.low,
        high=number.high,
        level=number.level,
        unit=number.unit,
        limit=limit,
        compared=None if compared is None else asdict(compared),
        reason=reason,
    )


def _relative(
    candidate: Measured,
    gate: Gate,
    references: References,
    recipes: Mapping[str, Measured],
    resamples: int,
    candidates: int,
) -> Outcome:
    number = candidate.number(gate.metric)
    name = SAME_AS.get(gate.metric, gate.metric)
    part, _, quantity = name.partition(".")
    by_frame = part in FRAMES_OF and quantity in compare.QUANTITIES
    rule = _rule(gate, by_frame, number.unit)
    limit = (1.0 + gate.margin) if by_frame else gate.margin

    def outcome(good: bool, reason: str, found: Interval | None = None) -> Outcome:
        return _outcome(gate, rule, number, limit, good, reason, found)

    if gate.relative_to == "champion":
        if references.obstacle is not None:
            return outcome(False, references.obstacle)
        if references.champion is None:
            return outcome(True, "there is no champion yet")
        reference = references.champion
    else:
        if references.foundation is None:
            return outcome(False, "missing: the foundation has not been evaluated")
        reference = references.foundation
    confidence = 1.0 - (1.0 - gate.confidence) / candidates
    if not by_frame:
        return _by_intervals(candidate, reference, gate, confidence, outcome)
    kind = FRAMES_OF[part]
    if candidate.identity.get(kind) != reference.identity.get(kind):
        return outcome(False, f"{reference.name} was measured on other {kind} frames")
    ours, theirs = candidate.own(part), reference.own(part)
    if ours is None or theirs is None:
        lacking = candidate if ours is None else reference
        return outcome(False, f"missing: no errors by frame of {lacking.name} on the {part} set")
    if len(ours.energy) != len(theirs.energy):
        return outcome(False, f"{reference.name} was measured on {len(theirs.energy)} frames, not {len(ours.energy)}")
    found: dict[str, Interval] = {}
    if "frames" in gate.over:
        found["frames"] = compare.over_frames(ours, theirs, quantity, confidence, resamples)
    if "seeds" in gate.over:
        spread = _spread(recipes, reference, gate, part, quantity)
        if spread is None:
            return outcome(
                False, "missing: one seed each, so the spread over seeds is unknown (seeds: [1, 2], or over: [frames])"
            )
        fixed = gate.relative_to == "foundation"
        found["frames and seeds"] = compare.over_seeds(
            candidate.recipe(part), reference.recipe(part), quantity, confidence, resamples, spread, fixed=fixed
        )
    over, worst = max(found.items(), key=lambda entry: entry[1].high)
    good = worst.high <= limit
    text = f"{100 * (worst.value - 1):+.1f} % [{100 * (worst.low - 1):+.1f}, {100 * (worst.high - 1):+.1f}] over {over}"
    return outcome(good, text if good else f"{text}: not shown to be within {100 * gate.margin:+g} %", worst)


def _rule(gate: Gate, by_frame: bool, unit: str) -> str:
    share = f"{100 * gate.margin:g} %" if by_frame else f"{gate.margin:g} {unit}".rstrip()
    if gate.margin == 0:
        return f"better than the {gate.relative_to}"
    if gate.margin < 0:
        return f"better than the {gate.relative_to} by {share.removeprefix('-')}"
    return f"not worse than the {gate.relative_to} by {share}"


def _spread(
    recipes: Mapping[str, Measured], reference: Measured, gate: Gate, part: str, quantity: str
) -> Spread | None:
    errors: dict[str, list[Errors]] = {name: measured.recipe(part) for name, measured in recipes.items()}
    if gate.relative_to == "champion":
        errors["champion"] = reference.recipe(part)
    return compare.pooled_spread(errors, quantity)


def _by_intervals(candidate: Measured, reference: Measured, gate: Gate, confidence: float, outcome: Made) -> Outcome:
    """A metric without errors by frame: difference of two independent intervals."""
    ours, theirs = candidate.number(gate.metric), reference.number(gate.metric)
    how = (candidate.identity.get("robustness"), reference.identity.get("robustness"))
    if gate.metric.startswith("robustness.") and None not in (ours.value, theirs.value) and how[0] != how[1]:
        return outcome(False, f"{reference.name} was measured otherwise ({how[1]}; here {how[0]})", None)
    for measured, number in ((candidate, ours), (reference, theirs)):
        if number.value is None or number.low is None or number.high is None:
            why = number.reason if number.value is None else "no interval"
            return outcome(False, f"missing: {gate.metric} of {measured.name}: {why}", None)
    sign = 1.0 if gate.better == "lower" else -1.0
    a, b = ((n.value or 0.0, n.low or 0.0, n.high or 0.0) for n in (ours, theirs))
    found = compare.difference(a, b, confidence, (ours.level, theirs.level))
    worst = found.high if sign > 0 else -found.low
    good = worst <= gate.margin
    text = f"{found.value:+.3g} [{found.low:+.3g}, {found.high:+.3g}] {ours.unit}".rstrip()
    return outcome(good, text if good else f"{text}: not shown to be within {gate.margin:g}", found)
