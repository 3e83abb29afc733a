"""Whether a candidate is better in the objective than the champion that stands. No MLflow here."""

from __future__ import annotations

import math

from retemper.config import metric_names
from retemper.config.settings import Promotion
from retemper.promotion import gates, robust
from retemper.promotion.gates import References
from retemper.records.verdict import GateOutcome
from retemper.registry.measurements import Measured


def order(objective: str, value: float | None) -> float:
    """Sorts the best first, and what was not measured last."""
    if value is None:
        return math.inf
    return value if metric_names.better(objective) == "lower" else -value


def against_champion(candidate: Measured, options: Promotion, references: References) -> GateOutcome | None:
    """The outcome of a gate that nobody need write: the champion stays unless a candidate is better in the objective.

    Values are compared, not bounds: this alone only keeps a re-run from moving anything, and a worse model from
    following a better one. A gate relative to the champion asks for more, and says it in its place. A champion that
    the gates put there, and that no longer passes those with ``max`` and ``min``, gives way to whoever passes.

    Returns
    -------
    GateOutcome or None
        `None` where there is nothing to add: no champion, a gate that asks for more, an objective not measured.
    """
    objective = options.objective
    candidate_number = candidate.number(objective)
    stricter = any(g.metric == objective and g.relative_to == "champion" and g.margin <= 0 for g in options.gates)
    champion = references.champion
    if stricter or candidate_number.value is None or (champion is None and references.obstacle is None):
        return None
    rule = f"{metric_names.better(objective)} than the champion's, by value"

    def outcome(holds: bool, reason: str, limit: float | None = None) -> GateOutcome:
        return gates.outcome_for(objective, rule, candidate_number, limit, holds, reason)

    if champion is None:
        return outcome(False, str(references.obstacle))
    absolute = [gate for gate in options.gates if gate.relative_to is None]
    fails = [o for o in gates.judge(champion, absolute, references, {}) if not o.passed]
    if fails and not references.by_person:
        return outcome(True, f"the champion does not pass {fails[0].metric} {fails[0].rule}: {fails[0].reason}")
    champion_number = champion.number(objective)
    difference = _setup_difference(candidate, champion, objective)
    if champion_number.value is None or difference:
        obstacle = difference or f"missing: {objective} of {champion.name}: {champion_number.reason}"
        return outcome(False, f"{obstacle}; a person may promote with a reason")
    holds = order(objective, candidate_number.value) < order(objective, champion_number.value)
    return outcome(
        holds,
        f"{candidate_number.value:.4g} against {champion_number.value:.4g} {candidate_number.unit}".rstrip(),
        champion_number.value,
    )


def _setup_difference(candidate: Measured, champion: Measured, objective: str) -> str:
    """What of the objective was measured otherwise for the champion, in words; "" where nothing was."""
    name = gates.SAME_AS.get(objective, objective)
    other = gates.other_frames(candidate, champion, name.partition(".")[0])
    if other is not None:
        return other
    difference = robust.setup_difference(candidate, champion, objective)
    return f"{champion.name} was measured otherwise: {difference}" if difference else ""
