"""The report's sections about results: what to do, table, Pareto front, curves, parity, configuration types."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from retemper.plotting import plots
from retemper.records.evaluation import Estimate
from retemper.records.runs import FOUNDATION, Results
from retemper.report.cautions import cautions
from retemper.report.comparison import DRIFT, RETENTION, Comparison, interval, mean_text, number
from retemper.report.decision import decision
from retemper.report.findings import findings
from retemper.report.page import Block, Bullets, Cell, Paragraph, Plot, Plots, Section, Table

SETS = {"target": "Target test set", "retention": "Retention set", "drift": "Drift from the foundation's predictions"}
MOST_PARITY_POINTS = 1500


def absent(name: str, stage: str) -> Paragraph:
    """A warning that a stage has not run."""
    return Paragraph(f"Missing: {name}. Run `dvc repro {stage}`.", "warning")


def summary(results: Results, comparison: Comparison) -> Section:
    """What to do, what to know before it is done, and what is missing."""
    blocks: list[Block] = []
    if results.missing:
        stages = ", ".join(f"`{name}`" for name in results.missing)
        blocks.append(
            Paragraph(f"This report is incomplete. Missing: {stages}. `dvc repro` makes what is missing.", "warning")
        )
    if comparison.elsewhere:
        names = ", ".join(f"`{name}`" for name in comparison.elsewhere)
        blocks.append(Paragraph(f"Measured on other frames and not compared: {names}. Run `dvc repro`.", "warning"))
    sentences, warnings = decision(results, comparison), cautions(results, comparison)
    if sentences:
        blocks += [Paragraph(sentences[0], "lead"), Bullets(sentences[1:])]
    else:
        blocks.append(Paragraph("There is nothing to compare yet."))
    if warnings:
        blocks += [Paragraph("Before you rely on it", "heading"), Bullets(warnings)]
    return Section("Decision", "What to do", blocks)


FORGOTTEN = {
    RETENTION: "Retention is the error on held-out structures of the foundation's pretraining distribution; forgetting "
    "is that force error over the foundation's own.",
    DRIFT: "Drift is the difference from the foundation's own predictions on structures that were kept apart from "
    "replay: there are no labels of the pretraining distribution, so what of it is loss is not known.",
}


def headline(results: Results, comparison: Comparison) -> Section:
    """The table of all strategies."""
    if not comparison.rows:
        return Section("Comparison", "Comparison", [absent("all trainings and evaluations", "report")])
    columns = [("Strategy", "")]
    present = [c for c in comparison.columns if any(row[c.key] is not None for row in comparison.rows.values())]
    columns += [(column.title, column.under) for column in present]
    rows = []
    for name, values in comparison.rows.items():
        row = [Cell(name, mark="front" if name in comparison.front else "")]
        for column in present:
            value = values[column.key]
            mark = "best" if comparison.best.get(column.key) == name else ""
            if name in comparison.tied.get(column.key, ()):
                mark = "tied"
            row.append(Cell("–") if value is None else Cell(mean_text(column, value), interval(column, value), mark))
        rows.append(row)
    level = f"{100 * results.settings.evaluate.confidence:g} %"
    groups = results.groups()
    group_counts = ", ".join(f"{number} of the {part} set" for part, number in groups.items())
    notes = (
        f"Root mean square errors on the test sets, means over seeds; below them the {level} interval for other groups "
        f"of test structures (trajectories, molecules; {group_counts}) and other seeds. ★ lowest in the column; "
        "≈ not distinguished from it on the same structures (paired, 95 %). The foundation is the reference and "
        f"takes no part in this. {FORGOTTEN[comparison.forgotten]} A model with a replay head has two "
        "answers: the target head is the one to use for the target system. Trained: share of the weights that were "
        "free to move. CPU time: of the process that trained one seed."
    )
    reference = [index for index, name in enumerate(comparison.rows) if name == FOUNDATION]
    blocks: list[Block] = [Table(columns, rows, reference=reference), Paragraph(notes, "note")]
    return Section("Comparison", "Comparison", [*blocks, Bullets(findings(comparison))])


def pareto(results: Results, comparison: Comparison) -> Section:
    """Accuracy against retention."""
    title = "Accuracy against retention"
    points = []
    for name in comparison.rows:
        x = comparison.value(name, "target.force_rmse")
        y = comparison.value(name, comparison.forgotten)
        if x is None or y is None:
            continue
        ratio, foundation = (
            comparison.value(name, "forgetting_ratio_replay_head"),
            comparison.value(FOUNDATION, "retention.force_rmse"),
        )
        drift = comparison.value(name, "drift_replay_head.force_rmse")
        replay = ratio.value * foundation.value if ratio and foundation else drift.value if drift else None
        points.append(plots.Point(name, x.value, y.value, _bounds(x), _bounds(y), name in comparison.front, replay))
    kept = "drift from the foundation" if comparison.forgotten == DRIFT else "retention"
    if not points:
        return Section("Pareto", title, [absent("evaluations on the target and on the retention set", "evaluate")])
    caption = (
        "Each point is a mean over seeds with its intervals; both axes are logarithmic, and the lower left is better. "
        "Filled symbols are on the Pareto front (dashed): nothing else is as good in both and better in one. "
        "The grey star is the foundation."
    )
    if any(point.replay_head is not None for point in points):
        caption += (
            " A bar below or above a point, joined by dots, is the same model's replay head on the retention set."
        )
    return Section("Pareto", title, [Plot(plots.pareto_svg(points, results.settings.strategies, kept), caption)])


def _bounds(value: Estimate) -> tuple[float, float] | None:
    return (value.low, value.high) if value.low is not None and value.high is not None else None


def curves(results: Results) -> Section:
    """Validation errors by epoch."""
    histories = {name: [t.history for t in seeds.values()] for name, seeds in results.trainings.items()}
    curve_plots = []
    for column, title, caption in (
        ("valid.force_rmse", "target force RMSE (meV/Å)", "Target. Line: mean over seeds; band: lowest to highest."),
        ("valid.energy_rmse", "target energy RMSE (meV/atom)", "Target."),
        ("valid_replay.force_rmse", "replay force RMSE (meV/Å)", "Replay structures with the replay head."),
    ):
        plot = plots.curves_svg(histories, column, title, results.settings.strategies)
        if plot is not None:
            curve_plots.append(Plot(plot, caption))
    walks = {name: [t.walk for t in seeds.values() if t.walk] for name, seeds in results.trainings.items()}
    if (plot := plots.walks_svg(walks, results.settings.strategies)) is not None:
        caption = (
            "Models between the foundation (the right end of each line) and the trained model, in tenths; the ring is "
            "the one that is kept."
        )
        curve_plots.append(Plot(plot, caption))
    if not curve_plots:
        return Section("Curves", "Learning curves", [absent("the trainings", "finetune")])
    note = (
        "Errors on the validation sets, on which the best epoch was chosen. The table above is made on the test sets."
    )
    return Section("Curves", "Learning curves", [Plots(curve_plots, 440), Paragraph(note, "note")])


def parity(results: Results) -> Section:
    """Predicted against reference forces, target and retention, one plot a strategy."""
    pairs: dict[str, dict[str, list[tuple[float, float]]]] = {"target": {}, "retention": {}, "drift": {}}
    for name in results.evaluations:
        path = results.project.evaluation(name) / "parity.csv"
        if not path.is_file():
            continue
        for (_, kind), rows in plots.read_parity(path).items():
            if kind in pairs:
                pairs[kind].setdefault(name, []).extend(rows)
    blocks: list[Block] = []
    for kind, by_name in pairs.items():
        if not by_name:
            continue
        limit = plots.parity_limit([(x, x) for rows in by_name.values() for x, _ in rows])
        small = []
        for name, rows in by_name.items():
            colour, _ = plots.style(results.settings.strategies, name)
            outside = sum(abs(y) > limit for _, y in rows) / len(rows)
            thin = rows[:: max(1, -(-len(rows) // MOST_PARITY_POINTS))]
            text = f"{100 * outside:.1f} % outside" if outside >= 0.01 else ""
            small.append(Plot(plots.parity_svg(thin, colour, name, limit, f"{kind}-{name}"), text))
        title = SETS[kind]
        blocks += [Paragraph(title, "heading"), Plots(small, 200)]
    if not blocks:
        return Section("Parity", "Parity of forces", [absent("parity.csv of the evaluations", "evaluate")])
    note = (
        "Force components of a fixed random subset, all seeds together, target head. The axes are the same in each "
        "group and may leave outliers outside."
    )
    return Section("Parity", "Parity of forces", [*blocks, Paragraph(note, "note")])


def config_types(results: Results) -> Section:
    """Force RMSE by configuration type."""
    blocks: list[Block] = []
    for part, title in SETS.items():
        table = _config_type_table(results, part)
        if table is not None:
            blocks += [Paragraph(title, "heading"), table]
    if not blocks:
        return Section("Types", "Errors by configuration type", [absent("the evaluations", "evaluate")])
    note = (
        "Force RMSE in meV/Å, target head, mean over seeds; ★ lowest of the strategies. Types with few structures are "
        "uncertain. Pooled errors hide a kind of structure that fails: look here before trusting the table at the top."
    )
    return Section("Types", "Errors by configuration type", [*blocks, Paragraph(note, "note")])


def _config_type_table(results: Results, part: str) -> Table | None:
    means: dict[str, dict[str, float]] = {}  # type -> name -> RMSE
    frames: dict[str, int] = {}
    for name, evaluation in results.evaluations.items():
        values: dict[str, list[float]] = {}
        for accuracy in evaluation.seeds.values():
            set_errors = accuracy.sets().get(part)
            for kind, errors in set_errors.by_config_type.items() if set_errors else ():
                frames[kind] = errors.n_frames
                values.setdefault(kind, []).append(errors.force_rmse)
        for kind, per_seed in values.items():
            means.setdefault(kind, {})[name] = statistics.fmean(per_seed)
    if not means:
        return None
    names = list(results.evaluations)
    rows = []
    for kind in sorted(means, key=lambda kind: -frames[kind]):
        fitted = {n: v for n, v in means[kind].items() if n != FOUNDATION}
        best = min(fitted, key=lambda name: fitted[name]) if len(fitted) > 1 else None
        row = [Cell(kind), Cell(str(frames[kind]))]
        row += [
            Cell(number(means[kind][n]), mark="best" if n == best else "") if n in means[kind] else Cell("–")
            for n in names
        ]
        rows.append(row)
    return Table(_titles(["Type", "Structures", *names]), rows)


def _titles(titles: Sequence[str]) -> list[tuple[str, str]]:
    return [(title, "") for title in titles]
