"""Gates: conditions as data, and what they say of one model. Nothing passes by default. No MLflow here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass

from retemper.config import metric_names
from retemper.config.settings import Gate
from retemper.evaluation.statistics import FEWEST_GROUPS, Interval
from retemper.promotion import compare, robust
from retemper.records.measures import Number
from retemper.records.verdict import Comparison, GateOutcome
from retemper.registry.measurements import Errors, Measured

# Metrics that are ratios to one number for all models are compared by what is above the line.
SAME_AS = {
    "forgetting_ratio": "retention.force_rmse",
    "forgetting_ratio_replay_head": "retention_replay_head.force_rmse",
}
CHAMPION = "@champion"  # its recipe, whatever its strategy's name; no strategy has an @


@dataclass(frozen=True)
class References:
    """What candidates are compared with.

    `champion` is `None` when there is none yet. Where there is one that cannot be compared with,
    `obstacle` says why, and every gate that needs it fails.
    """

    foundation: Measured | None
    champion: Measured | None
    obstacle: str | None = None
    by_person: bool = False  # how the champion came to its place: a person decided


MakeOutcome = Callable[[bool, str, Interval | None], GateOutcome]


def judge(
    candidate: Measured,
    gates: Sequence[Gate],
    references: References,
    recipes: Mapping[str, Measured],
    *,
    candidates: int = 1,
    look: int = 1,
) -> list[GateOutcome]:
    """Every gate's outcome for one candidate.

    Parameters
    ----------
    recipes
        One model of every strategy of this run: their seeds say how far errors scatter over seeds.
    candidates, look
        How many models are judged together, and for the how manieth time on these test frames: see `share`.
    """
    return [
        _relative(candidate, gate, references, recipes, share(candidates, look))
        if gate.relative_to
        else _absolute(candidate, gate)
        for gate in gates
    ]


def share(candidates: int, look: int) -> float:
    """Share of a gate's error that one comparison may spend, so that all of them together spend no more than all of it.

    A verdict on n candidates is n chances to promote wrongly (Bonferroni). So is every further verdict on the same test
    frames; look k gets 6 / (pi k)^2 of the error, and infinitely many looks spend all of it (Euler's sum).
    """
    return 6.0 / (math.pi * max(look, 1)) ** 2 / candidates


def passed(outcomes: Sequence[GateOutcome], *, absolute_only: bool = False) -> bool:
    """Whether all (absolute) gates hold. Without a single absolute gate the answer is no."""
    relevant = [outcome for outcome in outcomes if outcome.absolute or not absolute_only]
    return any(outcome.absolute for outcome in relevant) and all(outcome.passed for outcome in relevant)


def _absolute(candidate: Measured, gate: Gate) -> GateOutcome:
    number = candidate.number(gate.metric)
    limit = gate.max if gate.max is not None else gate.min
    assert limit is not None
    sign, word = ("≤", "above") if gate.max is not None else ("≥", "below")
    holds, reason = _within(gate, number, limit, word)
    rule = f"{sign} {limit:g} {number.unit}".rstrip() + (" by value" if gate.by == "value" else "")
    return outcome_for(gate.metric, rule, number, limit, holds, reason, absolute=True)


def _within(gate: Gate, number: Number, limit: float, word: str) -> tuple[bool, str]:
    """Whether a number, with its interval unless `gate.by` says otherwise, is within its limit; and why not."""
    if number.value is None:
        return False, f"missing: {number.reason}"
    upper = gate.max is not None
    if number.value > limit if upper else number.value < limit:
        return False, f"{number.value:.4g} is {word} {limit:g}"
    bound = number.high if upper else number.low
    beyond = bound is None or (bound > limit if upper else bound < limit)
    if not beyond:
        return True, "holds"
    groups = "" if number.groups is None else f" of {number.groups} group(s)"
    interval = f"the {100 * number.level:g} % interval{groups} " + (
        "is not known" if bound is None else f"reaches to {bound:.4g}"
    )
    if gate.by == "value":
        return True, f"holds by value; {interval}"
    return False, f"not shown: {number.value:.4g} would do, but {interval}"


def outcome_for(
    metric: str,
    rule: str,
    number: Number,
    limit: float | None,
    holds: bool,
    reason: str,
    interval: Interval | None = None,
    *,
    absolute: bool = False,
) -> GateOutcome:
    """An outcome of a model's `number`."""
    return GateOutcome(
        metric=metric,
        rule=rule,
        absolute=absolute,
        passed=bool(holds),
        value=number.value,
        low=number.low,
        high=number.high,
        level=number.level,
        groups=number.groups,
        unit=number.unit,
        limit=limit,
        compared=None if interval is None else Comparison.of(*astuple(interval)),
        reason=reason,
    )


def _relative(
    candidate: Measured,
    gate: Gate,
    references: References,
    recipes: Mapping[str, Measured],
    spend: float,
) -> GateOutcome:
    number = candidate.number(gate.metric)
    name = SAME_AS.get(gate.metric, gate.metric)
    part, _, quantity = name.partition(".")
    by_frame = has_frames(part) and quantity in compare.QUANTITIES
    rule = _rule(gate, by_frame, number.unit)
    limit = (1.0 + gate.margin) if by_frame else gate.margin

    def outcome(holds: bool, reason: str, ratio: Interval | None = None) -> GateOutcome:
        return outcome_for(gate.metric, rule, number, limit, holds, reason, ratio)

    if gate.relative_to == "champion":
        if references.obstacle is not None:
            return outcome(False, references.obstacle)
        if references.champion is None:
            if number.value is None:
                return outcome(False, f"missing: {number.reason}")
            return outcome(True, "there is no champion yet")
        reference = references.champion
    else:
        if references.foundation is None:
            return outcome(False, "missing: the foundation has not been evaluated")
        reference = references.foundation
    confidence = 1.0 - (1.0 - gate.confidence) * spend
    if not by_frame:
        return _by_intervals(candidate, reference, gate, confidence, outcome)
    if (difference := other_frames(candidate, reference, part)) is not None:
        return outcome(False, difference)
    errors, reference_errors = candidate.errors(part), reference.errors(part)
    if errors is None or reference_errors is None:
        unmeasured = candidate if errors is None else reference
        return outcome(False, f"missing: no errors by frame of {unmeasured.name} on the {part} set")
    if len(errors.energy) != len(reference_errors.energy):
        return outcome(
            False, f"{reference.name} was measured on {len(reference_errors.energy)} frames, not {len(errors.energy)}"
        )
    groups = len(set(errors.group))
    if groups < FEWEST_GROUPS:
        return outcome(
            False,
            f"not shown: the {part} frames are of {groups} independent group(s), {FEWEST_GROUPS} are needed to compare",
        )
    ratios: dict[str, Interval] = {}
    if "frames" in gate.over:
        ratios["frames"] = compare.over_groups(errors, reference_errors, quantity, confidence)
    if "seeds" in gate.over:
        by_recipe = _recipes(recipes, candidate, reference, gate, part)
        scatter = compare.scatter(by_recipe, quantity)
        if not scatter.known:
            return outcome(
                False, "missing: one seed each, so the spread over seeds is unknown (seeds: [1, 2], or over: [frames])"
            )
        names = [candidate.strategy] if gate.relative_to == "foundation" else [candidate.strategy, CHAMPION]
        ratios["frames and seeds"] = compare.over_seeds(
            candidate.recipe(part), reference.recipe(part), quantity, confidence, scatter, names
        )
    over, worst = max(ratios.items(), key=lambda entry: entry[1].high)
    holds = worst.high <= limit
    text = f"{100 * (worst.value - 1):+.1f} % [{100 * (worst.low - 1):+.1f}, {100 * (worst.high - 1):+.1f}] over {over}"
    text += f", {groups} groups"
    return outcome(holds, text if holds else f"{text}: not shown to be within {100 * gate.margin:+g} %", worst)


def has_frames(part: str) -> bool:
    """Whether what is measured on a set has errors by frame."""
    return part in metric_names.TEST or metric_names.of_kept(part)


def other_frames(candidate: Measured, reference: Measured, part: str) -> str | None:
    """Why errors of two models on a set may not be compared, if so: other frames, or labels of another foundation."""
    kind = "target" if part == metric_names.TARGET else "retention"
    if has_frames(part) and candidate.identity.get(kind) != reference.identity.get(kind):
        return f"{reference.name} was measured on other {kind} frames"
    source = "foundation_sha256"
    if metric_names.of_kept(part) and candidate.identity.get(source) != reference.identity.get(source):
        return f"{reference.name} was measured against another foundation"
    return None


def _rule(gate: Gate, by_frame: bool, unit: str) -> str:
    share = f"{100 * gate.margin:g} %" if by_frame else f"{gate.margin:g} {unit}".rstrip()
    if gate.margin == 0:
        return f"better than the {gate.relative_to}"
    if gate.margin < 0:
        return f"better than the {gate.relative_to} by {share.removeprefix('-')}"
    return f"not worse than the {gate.relative_to} by {share}"


def _recipes(
    recipes: Mapping[str, Measured], candidate: Measured, reference: Measured, gate: Gate, part: str
) -> dict[str, list[Errors]]:
    """Errors on a set by recipe, one entry a seed: those of this run, the candidate's and the champion's among them."""
    errors = {name: model.recipe(part) for name, model in recipes.items() if model.model != reference.model}
    errors[candidate.strategy] = candidate.recipe(part)
    if gate.relative_to == "champion":
        errors[CHAMPION] = reference.recipe(part)
    return errors


def _by_intervals(
    candidate: Measured, reference: Measured, gate: Gate, confidence: float, outcome: MakeOutcome
) -> GateOutcome:
    """A metric without errors by frame: difference of two independent intervals."""
    candidate_number, reference_number = candidate.number(gate.metric), reference.number(gate.metric)
    other = other_frames(candidate, reference, gate.metric.partition(".")[0])
    if other is not None:
        return outcome(False, other, None)
    difference = robust.setup_difference(candidate, reference, gate.metric)
    if None not in (candidate_number.value, reference_number.value) and difference:
        return outcome(False, f"{reference.name} was measured otherwise: {difference}", None)
    for model, number in ((candidate, candidate_number), (reference, reference_number)):
        if number.value is None or number.low is None or number.high is None:
            obstacle = number.reason if number.value is None else "no interval"
            return outcome(False, f"missing: {gate.metric} of {model.name}: {obstacle}", None)
    sign = 1.0 if metric_names.better(gate.metric) == "lower" else -1.0
    a, b = ((n.value or 0.0, n.low or 0.0, n.high or 0.0) for n in (candidate_number, reference_number))
    paired = robust.paired_difference(candidate, reference, gate.metric, confidence)
    if paired is not None and paired.groups < FEWEST_GROUPS:
        return outcome(False, f"only {paired.groups} groups of structures: too few to compare", None)
    fewest = min(
        (n.groups for n in (candidate_number, reference_number) if n.groups is not None), default=FEWEST_GROUPS
    )
    if paired is None and fewest < FEWEST_GROUPS:
        return outcome(
            False, f"not shown: over {fewest} independent group(s), {FEWEST_GROUPS} are needed to compare", None
        )
    interval = paired or compare.difference(
        a, b, confidence, (candidate_number.level, reference_number.level), candidate_number.groups or 0
    )
    worst = interval.high if sign > 0 else -interval.low
    holds = worst <= gate.margin
    text = f"{interval.value:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}] {candidate_number.unit}".rstrip()
    return outcome(holds, text if holds else f"{text}: not shown to be within {gate.margin:g}", interval)
