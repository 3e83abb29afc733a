"""The comparison of all strategies as web page, Markdown, tables and plot data, from the files under ``runs/``.

Works without MLflow. What has not run is named as missing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from retemper.config.metric_names import set_of
from retemper.config.project import Project
from retemper.core.files import atomic_folder, write_json
from retemper.records.runs import FOUNDATION, Results, read_results
from retemper.report import failures, inputs, robustness, sections
from retemper.report.comparison import DRIFT, Comparison, compare, terminal
from retemper.report.page import Document, to_html, to_markdown
from retemper.report.promotion import promotion
from retemper.tracking import lineage


def run(project: Project) -> Path:
    """Write ``runs/report/``: report, failed structures, metrics.json and tables as CSV.

    Returns
    -------
    Path
        The folder. It is replaced whole.
    """
    results = read_results(project)
    comparison = compare(results)
    page = document(results, comparison)
    measures = robustness.rows(results)
    flat = {f"{row['strategy']}.robustness.{row['metric']}": row["value"] for row in measures}
    files = {
        "report.html": to_html(page),
        failures.NAME: failures.page(failures.collect(results)),
        "report.md": to_markdown(page),
        "table.csv": table_csv(comparison),
        "pareto.csv": pareto_csv(comparison),
        "robustness.csv": _csv(measures, robustness.COLUMNS),
        "curves.csv": curves_csv(results),
    }
    with atomic_folder(project.report) as folder:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        write_json(folder / "metrics.json", {**flat_metrics(comparison), **flat})
    return project.report


def terminal_table(project: Project) -> str:
    """The headline table and where to look, for the terminal."""
    results = read_results(project)
    comparison = compare(results)
    foundation, settings = project.foundation, project.settings
    lines = [
        f"{settings.system} ({settings.dataset.level_of_theory}), fine-tuned from {foundation.name} "
        f"({foundation.level_of_theory}): RMSE on test sets, mean over seeds (interval)",
        terminal(comparison),
        f"* best   ~ not distinguished from it   P Pareto front of target and {set_of(comparison.forgotten)} forces   "
        "lower is better",
    ]
    if comparison.forgotten == DRIFT:
        lines.append("drift: from the foundation's own forces on structures of its domain, which have no labels")
    if comparison.elsewhere:
        lines.append(f"measured on other frames, not compared (dvc repro): {', '.join(comparison.elsewhere)}")
    if results.missing:
        lines.append(f"missing: {', '.join(results.missing)}")
    lines += ["", "report:  runs/report/report.html, or: retemper open report", "runs:    retemper open mlflow"]
    return "\n".join(lines)


def document(results: Results, comparison: Comparison) -> Document:
    """The report before it is rendered."""
    settings = results.settings
    foundation = results.project.foundation
    commit = lineage.git_commit(results.root)
    changes = " with changes" if commit.dirty else ""
    code = f"{commit.commit[:10]}{changes}" if commit.commit else "no commit"
    counts = results.counts()
    sizes = " / ".join(str(counts[name]) for name in ("train", "valid", "test")) if "test" in counts else "missing"
    seeds = ", ".join(map(str, settings.seeds))
    facts = [
        ("Target level of theory", settings.dataset.level_of_theory),
        ("Foundation", f"{foundation.name} ({foundation.level_of_theory})"),
        ("Train / valid / test structures", sizes),
        ("Seeds", seeds),
        ("Code", code),
    ]
    return Document(
        title=f"{settings.system}: fine-tuning strategies compared",
        subtitle="Accuracy on the target, and what was forgotten of the foundation's knowledge.",
        facts=facts,
        sections=[
            sections.summary(results, comparison),
            sections.headline(results, comparison),
            sections.pareto(results, comparison),
            sections.curves(results),
            sections.parity(results),
            sections.config_types(results),
            robustness.section(results),
            *([promotion(results)] if settings.promotion.gates else []),
            inputs.data(results),
            inputs.e0s(results),
            inputs.proof(results),
            inputs.where(results),
        ],
        beside=[("Failed structures", failures.NAME)],
    )


# ------------------------------------------------------------------ tables for other programs


def _csv(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def table_csv(comparison: Comparison) -> str:
    """One row a strategy: mean, std, low and high of every column in its stored unit, and the front."""
    names = [f"{c.key}{part}" for c in comparison.columns for part in ("", ".std", ".low", ".high")]
    rows: list[dict[str, object]] = []
    for name, values in comparison.rows.items():
        row: dict[str, object] = {"strategy": name, "pareto_front": int(name in comparison.front)}
        for column in comparison.columns:
            value = values[column.key]
            if value is not None:
                parts = {"": value.value, ".std": value.std, ".low": value.low, ".high": value.high}
                row |= {f"{column.key}{part}": number for part, number in parts.items() if number is not None}
        rows.append(row)
    return _csv(rows, ["strategy", *names, "pareto_front"])


def pareto_csv(comparison: Comparison) -> str:
    """Target against retention force RMSE, or drift from the foundation (meV/A), one row a point."""
    rows: list[dict[str, object]] = []
    for name in comparison.rows:
        x, y = comparison.value(name, "target.force_rmse"), comparison.value(name, comparison.forgotten)
        if x is not None and y is not None:
            point = {"target.force_rmse": x.value, comparison.forgotten: y.value}
            rows.append({"strategy": name, **point, "pareto_front": int(name in comparison.front)})
    return _csv(rows, ["strategy", "target.force_rmse", "retention.force_rmse", "drift.force_rmse", "pareto_front"])


def curves_csv(results: Results) -> str:
    """Every ``history.csv`` below one another, with strategy and seed."""
    rows: list[dict[str, object]] = []
    columns: dict[str, None] = {"strategy": None, "seed": None, "epoch": None}
    for strategy, seeds in results.trainings.items():
        for seed, training in seeds.items():
            for row in training.history:
                columns |= dict.fromkeys(row)
                rows.append({"strategy": strategy, "seed": seed, **row, "epoch": int(row["epoch"])})
    return _csv(rows, list(columns))


def flat_metrics(comparison: Comparison) -> dict[str, float]:
    """``{"lora.target.force_rmse": ...}`` for `dvc metrics show`: means over seeds."""
    flat = {}
    for name, values in comparison.rows.items():
        for column in comparison.columns:
            value = values[column.key]
            if value is not None and not (name == FOUNDATION and column.key == "forgetting_ratio"):
                flat[f"{name}.{column.key}"] = value.value
    return flat
