"""The report's section on promotion: the decision, and every gate of every candidate."""

from __future__ import annotations

from retemper.promotion.verdict import decision, notes, value_text
from retemper.records.runs import Results
from retemper.report.page import Block, Bullets, Cell, Paragraph, Section, Table
from retemper.report.sections import absent


def promotion(results: Results) -> Section:
    """What the stage promote decided, and why."""
    content = results.verdict
    if content is None:
        return Section("Promotion", "Promotion", [absent("the verdict of the gates", "promote")])
    blocks: list[Block] = [Bullets([*decision(content), *(line.removeprefix("- ") for line in notes(content))])]
    if content["obstacle"]:
        blocks.append(Paragraph(f"No candidate can become champion: {content['obstacle']}.", "warning"))
    columns = [("Candidate", ""), ("Gate", ""), ("Value", "95 % interval"), ("", ""), ("Reason", "")]
    for name, one in content["candidates"].items():
        title = f"{one['rank']}. {name}, {content['model']}/{one['version']}"
        rows = [
            [
                Cell(title if k == 0 else ""),
                Cell(f"{gate['metric']} {gate['rule']}"),
                Cell(value_text(gate)),
                Cell("passed" if gate["passed"] else "failed", mark="best" if gate["passed"] else ""),
                Cell(gate["reason"]),
            ]
            for k, gate in enumerate(one["gates"])
        ]
        blocks.append(Table(columns, rows, textual=True))
        blocks.append(Paragraph(f"Judged by seed {one['seed']}: {one['chosen']}.", "note"))
        if one["barred"]:
            blocks.append(Paragraph(f"{title}: {one['barred']}.", "note"))
    note = (
        f"Gates {content['gates_digest']}. Candidates that pass come first, then by {content['objective']}. "
        "Comparisons are ratios of errors on the "
        "same frames (paired over groups), the wider of two intervals: other groups for this model, and other groups "
        "and seeds for its strategy. Their error is shared among the candidates and the looks at these test frames."
    )
    return Section("Promotion", "Promotion", [*blocks, Paragraph(note, "note")])
