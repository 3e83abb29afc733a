"""A verdict in words: as Markdown, and as the sentences and tables that the report and the registry show."""

from __future__ import annotations

from retemper.promotion import gates
from retemper.records.measures import Number
from retemper.records.verdict import Candidate, GateOutcome, Verdict

HEADING = "\n## Gates\n\n"  # of the table in a version's description


def value(outcome: GateOutcome) -> str:
    """What a gate looked at, with its interval."""
    return Number(outcome.value, outcome.low, outcome.high, level=outcome.level, groups=outcome.groups).text()


def markdown(verdict: Verdict) -> str:
    """The decision, then a table of gates a candidate."""
    lines = [f"# {verdict.model}: verdict", "", *(f"- {line}" for line in decision(verdict))]
    lines += [f"- Gates: `{verdict.gates_digest}`, {len(verdict.gates)} of them.", *notes(verdict), ""]
    for name, candidate in verdict.candidates.items():
        state = "passes" if candidate.passed else "does not pass"
        lines += [f"## {candidate.rank}. {name}: {verdict.model}/{candidate.version} {state}", ""]
        lines += [f"Judged by seed {candidate.seed}: {candidate.chosen}.", ""]
        lines += [table(candidate), *([f"Barred: {candidate.barred}.", ""] if candidate.barred else [])]
    return "\n".join(lines)


def notes(verdict: Verdict) -> list[str]:
    """What the number of looks at the test frames costs, and what a ratio to the foundation cannot tell; as a list."""
    lines = []
    look, candidates = verdict.look, len(verdict.candidates)
    if look > 0:
        spent = 100 * gates.share(candidates, look)
        lines.append(
            f"- Look {look} at these test frames: each comparison may spend {spent:.2g} % of its gate's error "
            f"({candidates} candidates; new test frames start at look 1)."
        )
    if verdict.foundation_level != verdict.level and any("forgetting" in gate.metric for gate in verdict.gates):
        lines.append(
            f"- forgetting_ratio: the retention labels are at {verdict.foundation_level}, the models at "
            f"{verdict.level}; the ratio holds this change as well as what was forgotten."
        )
    return lines


def table(candidate: Candidate) -> str:
    """The gates of a candidate, as Markdown."""
    lines = ["| gate | value | | reason |", "|---|---|---|---|"]
    for gate in candidate.gates:
        mark = "passed" if gate.passed else "**failed**"
        lines.append(f"| {gate.metric} {gate.rule} | {value(gate)} | {mark} | {gate.reason} |")
    return "\n".join([*lines, ""])


def outcomes(verdict: Verdict) -> list[str]:
    """A line a candidate: that it passes, or what stands in its way."""
    return [
        f"{name} ({verdict.model}/{candidate.version}): "
        + ("passes" if candidate.passed else "; ".join(candidate.failures) or "is the champion")
        for name, candidate in verdict.candidates.items()
    ]


def decision(verdict: Verdict) -> list[str]:
    """The decision in sentences."""

    def label(name: str) -> str:
        candidate = verdict.candidates[name]
        return f"`{verdict.model}/{candidate.version}` ({name}, seed {candidate.seed})"

    if verdict.champion:
        champion = f"{label(verdict.champion)} passes every gate."
    else:
        stays = f"stays {verdict.before}" if verdict.before else "none"
        champion = f"{stays}. No candidate passes every gate."
    challenger = "none. No other candidate passes the absolute gates."
    if verdict.challenger:
        challenger = (
            f"{label(verdict.challenger)} is the best in {verdict.objective} of the others that pass the absolute "
            "gates."
        )
    return [f"Champion: {champion}", f"Challenger: {challenger}"]
