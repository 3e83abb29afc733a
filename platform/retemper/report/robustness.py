"""The report's section about what models do away from the test set, and its table for other programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from retemper.evaluation.robustness import identity, units
from retemper.evaluation.robustness.units import Unit
from retemper.evaluation.statistics import FEWEST_GROUPS
from retemper.records.robustness import Measure, ModelRobustness, Robustness
from retemper.records.runs import FOUNDATION, Results
from retemper.report.comparison import number
from retemper.report.page import Block, Cell, Paragraph, Section, Table
from retemper.report.sections import absent

COLUMNS = ["strategy", "metric", "value", "low", "high", "groups", "unit", "score"]


def rows(results: Results) -> list[dict[str, str | float | None]]:
    """A row for each strategy and metric that was measured: mean over seeds, low, high, groups, unit, score."""
    return [
        {"strategy": name, "metric": metric, **measure.model_dump(include=set(COLUMNS))}
        for name, robustness in results.robustness.items()
        for metric, measure in robustness.summary.items()
        if measure.value is not None
    ]


def section(results: Results) -> Section:
    """A table of strategies and metrics with intervals."""
    title = "Away from the test set"
    if not results.robustness:
        return Section("Robustness", title, [absent("the robustness suite", "robustness")])
    levels = sorted({robustness.level for robustness in results.robustness.values()})
    note = (
        f"Level {', '.join(levels)}. Means over the seeds that were measured, with 95 % intervals over what is "
        "independent (in brackets: how many groups) that span those of the seeds. ★ best score of the strategies, "
        "where all were measured alike. "
        "`retemper metrics` says what each metric is; tables, plots and the structures that failed: "
        "`runs/robustness/<strategy>/seed-<k>/`."
    )
    measures = [
        (metric, measure)
        for robustness in results.robustness.values()
        for metric, measure in robustness.summary.items()
    ]
    metrics = list(dict.fromkeys(metric for metric, _ in measures))
    reasons = {f"Not measured: {metric}: {measure.reason}" for metric, measure in measures if measure.value is None}
    levels_of_theory = {f"{metric}: {measure.against}" for metric, measure in measures if measure.against}
    blocks: list[Block] = [_table(results, metrics), Paragraph(note, "note")]
    blocks += [Paragraph(text, "note") for text in _limits(dict(measures))]
    blocks += _against_foundation(results, metrics)
    blocks += [Paragraph(text, "note") for text in (*sorted(reasons), *sorted(levels_of_theory))]
    return Section("Robustness", title, blocks)


def _table(results: Results, metrics: Sequence[str]) -> Table:
    columns, best = [("Strategy", "")], {}
    for metric in metrics:
        measures = {n: r.summary[metric] for n, r in results.robustness.items() if metric in r.summary}
        scores = {n: m.score for n, m in measures.items() if n != FOUNDATION and m.score is not None}
        top = max(scores.values(), default=None)
        comparable = len(set(scores.values())) > 1 and _is_comparable(results, scores, metric)
        best[metric] = {n for n, score in scores.items() if score == top} if comparable else set()
        columns.append((metric, next(measure.unit for measure in measures.values())))
    table = [
        [Cell(name), *(_cell(robustness.summary.get(metric), name in best[metric]) for metric in metrics)]
        for name, robustness in results.robustness.items()
    ]
    reference = [k for k, name in enumerate(results.robustness) if name == FOUNDATION]
    return Table(columns, table, reference=reference)


def _is_comparable(results: Results, names: Iterable[str], metric: str) -> bool:
    """Whether all that decides a metric beside the model is the same for the strategies `names`."""
    identities = [_first_seed(results.robustness[name]).metrics[metric].identity for name in names]
    return not any(identity.difference(entry, identities[0]) for entry in identities)


def _cell(measure: Measure | None, best: bool) -> Cell:
    if measure is None or measure.value is None:
        return Cell("–")
    small = None
    if measure.low is not None and measure.high is not None:
        bounds = (number(bound, measure.value) for bound in (measure.low, measure.high))
        small = f"{' – '.join(bounds)} ({measure.groups})"
    if measure.against:
        small = f"{small or ''} ({measure.against})".strip()
    return Cell(number(measure.value), small, "best" if best else "")


def _limits(measures: Mapping[str, Measure]) -> list[str]:
    """What so few groups cannot tell, a sentence a metric."""
    return [
        f"{metric}: {measure.groups} {measure.grouped_by}; even a perfect score would show no "
        f"{'more' if measure.can_show > 50 else 'less'} than {measure.can_show:.0f} %."
        for metric, measure in measures.items()
        if measure.can_show is not None
    ]


def _against_foundation(results: Results, metrics: Sequence[str]) -> list[Block]:
    """Differences to the foundation by the same structures, first measured seed, 95 % intervals over groups."""
    if FOUNDATION not in results.robustness:
        return []
    rows = [
        [Cell(name), *(_difference(results, name, metric) for metric in metrics)]
        for name in results.robustness
        if name != FOUNDATION
    ]
    if all(cell.text == "–" for row in rows for cell in row[1:]):
        return []
    note = (
        "Difference to the foundation by the same structures, the first measured seed, with 95 % intervals over groups "
        "of them. Too few: less than five groups. Other: measured otherwise."
    )
    return [Table([("Strategy", ""), *((metric, "") for metric in metrics)], rows), Paragraph(note, "note")]


def _first_seed(robustness: Robustness) -> ModelRobustness:
    return robustness.seeds[min(robustness.seeds)]


def _units(results: Results, name: str, metric: str) -> list[Unit]:
    """What a metric counted of the first measured seed of a strategy."""
    seed = min(results.robustness[name].seeds)
    return units.read(results.project.robustness(name) / f"seed-{seed}" / units.UNITS).get(metric, [])


def _difference(results: Results, name: str, metric: str) -> Cell:
    model_units, foundation_units = (_units(results, side, metric) for side in (name, FOUNDATION))
    if not model_units or not foundation_units:
        return Cell("–")
    identities = (_first_seed(results.robustness[side]).metrics[metric].identity for side in (name, FOUNDATION))
    if identity.difference(*identities):
        return Cell("other")
    interval = units.paired_difference(model_units, foundation_units)
    if interval.groups < FEWEST_GROUPS:
        return Cell(f"too few ({interval.groups})")
    bounds = f"{interval.low:+.3g} – {interval.high:+.3g} ({interval.groups})"
    return Cell(f"{interval.value:+.3g}", bounds)
