"""The report's section about what models do away from the test set, and its table for other programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from retemper.evaluation.robustness import identity, units
from retemper.evaluation.robustness.units import Unit
from retemper.evaluation.statistics import FEWEST_GROUPS
from retemper.records.runs import FOUNDATION, Results
from retemper.report.comparison import number
from retemper.report.page import Block, Cell, Paragraph, Section, Table
from retemper.report.sections import absent

COLUMNS = ["strategy", "metric", "value", "low", "high", "groups", "unit", "score"]


def rows(results: Results) -> list[dict[str, Any]]:
    """A row for each strategy and metric that was measured: mean over seeds, low, high, groups, unit, score."""
    return [
        {"strategy": name, "metric": metric, "value": found["mean"]} | {key: found.get(key) for key in COLUMNS[3:]}
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
        comparable = len(set(scores.values())) > 1 and _measured_alike(results, scores, metric)
        best[metric] = {n for n, s in scores.items() if s == top} if comparable else set()
        columns.append((metric, next((f["unit"] for f in found.values() if f), "")))
    for name in names:
        row = [Cell(name)]
        for metric in metrics:
            found_here = results.robustness[name]["summary"].get(metric)
            row.append(_cell(found_here, name in best[metric]))
        table.append(row)
    reference = [k for k, name in enumerate(names) if name == FOUNDATION]
    note = (
        f"Level {', '.join(levels)}. Means over the seeds that were measured, with 95 % intervals over what is "
        "independent (in brackets: how many groups) that span those of the seeds. ★ best score of the strategies, "
        "where all were measured alike. "
        "`retemper metrics` says what each metric is; tables, plots and the structures that failed: "
        "`runs/robustness/<strategy>/seed-<k>/`."
    )
    reasons = {
        f"{metric}: {found['reason']}"
        for measured in results.robustness.values()
        for metric, found in measured["summary"].items()
        if found["mean"] is None
    }
    blocks: list[Block] = [Table(columns, table, reference=reference), Paragraph(note, "note")]
    blocks += [Paragraph(text, "note") for text in _limits(results)]
    blocks += _against_foundation(results, metrics)
    blocks += [Paragraph(f"Not measured: {reason}", "note") for reason in sorted(reasons)]
    against = {
        f"{metric}: {found['against']}"
        for measured in results.robustness.values()
        for metric, found in measured["summary"].items()
        if found.get("against")
    }
    blocks += [Paragraph(words, "note") for words in sorted(against)]
    return Section("Robustness", title, blocks)


def _measured_alike(results: Results, names: Iterable[str], metric: str) -> bool:
    """Whether all that decides a metric beside the model is the same for the strategies `names`."""
    seeds = [next(iter(results.robustness[name]["seeds"].values())) for name in names]
    every = [measured["metrics"][metric].get("identity", {}) for measured in seeds]
    return not any(identity.difference(one, every[0]) for one in every)


def _cell(found: dict[str, Any] | None, best: bool) -> Cell:
    if found is None or found["mean"] is None:
        return Cell("–")
    small = None
    if found["low"] is not None:
        bounds = (number(found[side], found["mean"]) for side in ("low", "high"))
        small = f"{' – '.join(bounds)} ({found.get('groups', '?')})"
    if found.get("against"):
        small = f"{small or ''} ({found['against']})".strip()
    return Cell(number(found["mean"]), small, "best" if best else "")


def _limits(results: Results) -> list[str]:
    """What so few groups cannot tell, a sentence a metric."""
    found = {
        metric: summary
        for measured in results.robustness.values()
        for metric, summary in measured["summary"].items()
        if summary.get("can_show") is not None
    }
    return [
        f"{metric}: {one['groups']} {one['grouped_by']}; even a perfect score would show no "
        f"{'more' if one['can_show'] > 50 else 'less'} than {one['can_show']:.0f} %."
        for metric, one in found.items()
    ]


def _against_foundation(results: Results, metrics: list[str]) -> list[Block]:
    """Differences to the foundation by the same structures, first measured seed, 95 % intervals over groups."""
    base = _first_seed(results, FOUNDATION)
    rows = []
    for name in results.robustness:
        own = _first_seed(results, name)
        if name != FOUNDATION and base is not None and own is not None:
            rows.append([Cell(name), *(_difference(own, base, metric) for metric in metrics)])
    if not rows or all(cell.text == "–" for row in rows for cell in row[1:]):
        return []
    note = (
        "Difference to the foundation by the same structures, the first measured seed, with 95 % intervals over groups "
        "of them. Too few: less than five groups. Other: measured otherwise."
    )
    return [Table([("Strategy", ""), *((metric, "") for metric in metrics)], rows), Paragraph(note, "note")]


def _first_seed(results: Results, name: str) -> tuple[dict[str, Any], dict[str, list[Unit]]] | None:
    seeds = results.robustness.get(name, {}).get("seeds")
    if not seeds:
        return None
    seed = min(seeds, key=int)
    return seeds[seed]["metrics"], units.read(results.root / "runs/robustness" / name / f"seed-{seed}" / units.UNITS)


def _difference(
    own: tuple[dict[str, Any], dict[str, list[Unit]]], base: tuple[dict[str, Any], dict[str, list[Unit]]], metric: str
) -> Cell:
    (ours, our_units), (theirs, their_units) = own, base
    if not our_units.get(metric) or not their_units.get(metric):
        return Cell("–")
    if identity.difference(ours[metric].get("identity", {}), theirs[metric].get("identity", {})):
        return Cell("other")
    found = units.paired(our_units[metric], their_units[metric])
    if found.groups < FEWEST_GROUPS:
        return Cell(f"too few ({found.groups})")
    return Cell(f"{found.value:+.3g}", f"{found.low:+.3g} – {found.high:+.3g} ({found.groups})")
