"""The report's section about what models do away from the test set, and its table for other programs."""

from __future__ import annotations

from typing import Any

from retemper.report.comparison import number
from retemper.report.page import Block, Cell, Paragraph, Section, Table
from retemper.report.sections import absent
from retemper.results import FOUNDATION, Results


def rows(results: Results) -> list[dict[str, Any]]:
    """A row for each strategy and metric that was measured: mean over seeds, low, high, unit, score."""
    return [
        {"strategy": name, "metric": metric, "value": found["mean"]}
        | {key: found[key] for key in ("low", "high", "unit", "score")}
        for name, measured in results.robustness.items()
        for metric, found in measured["summary"].items()
        if found["mean"] is not None
    ]


def section(results: Results) -> Section:
    """A table of strategies and metrics with intervals."""
    title = "Away from the test set"
    names = list(results.robustness)
    if not names:
        return Section("Robustness", title, [absent("the robustness suite", "robustness")])
    metrics = list(dict.fromkeys(m for measured in results.robustness.values() for m in measured["summary"]))
    levels = sorted({measured["level"] for measured in results.robustness.values()})
    columns, best, table = [("Strategy", "")], {}, []
    for metric in metrics:
        found = {n: results.robustness[n]["summary"].get(metric) or {} for n in names}
        scores = {n: f["score"] for n, f in found.items() if n != FOUNDATION and f.get("score") is not None}
        top = max(scores.values(), default=None)
        best[metric] = {n for n, s in scores.items() if s == top} if len(set(scores.values())) > 1 else set()
        columns.append((metric, next((f["unit"] for f in found.values() if f), "")))
    for name in names:
        row = [Cell(name)]
        for metric in metrics:
            found_here = results.robustness[name]["summary"].get(metric)
            row.append(_cell(found_here, name in best[metric]))
        table.append(row)
    reference = [k for k, name in enumerate(names) if name == FOUNDATION]
    note = (
        f"Level {', '.join(levels)}. Means over the seeds that were measured, with 95 % intervals (Wilson for shares, "
        "bootstrap otherwise) that span those of the seeds. ★ best score of the strategies. `retemper metrics` says "
        "what each metric is; tables, plots and the structures that failed: `runs/robustness/<strategy>/seed-<k>/`."
    )
    reasons = {
        f"{metric}: {found['reason']}"
        for measured in results.robustness.values()
        for metric, found in measured["summary"].items()
        if found["mean"] is None
    }
    blocks: list[Block] = [Table(columns, table, reference=reference), Paragraph(note, "note")]
    blocks += [Paragraph(f"Not measured: {reason}", "note") for reason in sorted(reasons)]
    against = {
        f"{metric}: {found['against']}"
        for measured in results.robustness.values()
        for metric, found in measured["summary"].items()
        if found.get("against")
    }
    blocks += [Paragraph(words, "note") for words in sorted(against)]
    return Section("Robustness", title, blocks)


def _cell(found: dict[str, Any] | None, best: bool) -> Cell:
    if found is None or found["mean"] is None:
        return Cell("–")
    small = None
    if found["low"] is not None:
        small = f"{number(found['low'], found['mean'])} – {number(found['high'], found['mean'])}"
    if found.get("against"):
        small = f"{small or ''} ({found['against']})".strip()
    return Cell(number(found["mean"]), small, "best" if best else "")
