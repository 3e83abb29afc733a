"""The report's section on promotion: the decision, and every gate of every candidate."""

from __future__ import annotations

from retemper.promotion import text
from retemper.records.runs import Results
from retemper.report.page import Block, Bullets, Cell, Paragraph, Section, Table
from retemper.report.sections import absent


def promotion(results: Results) -> Section:
    """What the stage promote decided, and why."""
    verdict = results.verdict
    if verdict is None:
        return Section("Promotion", "Promotion", [absent("the verdict of the gates", "promote")])
    blocks: list[Block] = [
        Bullets([*text.decision(verdict), *(line.removeprefix("- ") for line in text.notes(verdict))])
    ]
    if verdict.obstacle:
        blocks.append(Paragraph(f"No candidate can become champion: {verdict.obstacle}.", "warning"))
    columns = [("Candidate", ""), ("Gate", ""), ("Value", "95 % interval"), ("", ""), ("Reason", "")]
    for name, candidate in verdict.candidates.items():
        title = f"{candidate.rank}. {name}, {verdict.model}/{candidate.version}"
        rows = [
            [
                Cell(title if k == 0 else ""),
                Cell(f"{gate.metric} {gate.rule}"),
                Cell(text.value(gate)),
                Cell("passed" if gate.passed else "failed", mark="best" if gate.passed else ""),
                Cell(gate.reason),
            ]
            for k, gate in enumerate(candidate.gates)
        ]
        blocks.append(Table(columns, rows, textual=True))
        blocks.append(Paragraph(f"Judged by seed {candidate.seed}: {candidate.chosen}.", "note"))
        if candidate.barred:
            blocks.append(Paragraph(f"{title}: {candidate.barred}.", "note"))
    note = (
        f"Gates {verdict.gates_digest}. Candidates that pass come first, then by {verdict.objective}. "
        "Comparisons are ratios of errors on the "
        "same frames (paired over groups), the wider of two intervals: other groups for this model, and other groups "
        "and seeds for its strategy. Their error is shared among the candidates and the looks at these test frames."
    )
    return Section("Promotion", "Promotion", [*blocks, Paragraph(note, "note")])
