"""One PNG file for each table that a metric wants drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retemper.evaluation.robustness.result import Result

MOST_LINES = 14  # more are thinned out


def draw(folder: Path, titles: Mapping[str, str], results: Mapping[str, Result]) -> list[Path]:
    """Draw `Result.plots` of every metric beside the tables; returns the files."""
    paths = []
    for name, result in results.items():
        for table, (x, y, group, style) in result.plots.items():
            columns, rows = result.tables[table]
            lines: dict[str, list[tuple[float, float]]] = {}
            places = [list(columns).index(column) for column in (x, y, group)]
            for row in rows:
                a, b, key = (row[place] for place in places)
                lines.setdefault(str(key), []).append((a, b))
            if lines:
                paths.append(folder / f"{name}-{table}.png")
                _png(paths[-1], lines, x, y, titles[name], style)
    return paths


def _png(path: Path, lines: dict[str, list[tuple[float, float]]], x: str, y: str, title: str, style: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    names = list(lines)
    for name in names[:: max(1, -(-len(names) // MOST_LINES))]:
        points = zip(*lines[name], strict=True)
        if style == "points":
            axes.plot(*points, marker="o", markersize=4, linestyle="none", alpha=0.6, label=name)
        else:
            axes.plot(*points, drawstyle="steps-post" if style == "steps" else "default", linewidth=1.3, label=name)
    if style == "log":
        axes.set_xscale("log")
        axes.set_yscale("log")
    if style == "symlog":
        axes.set_yscale("symlog")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=9, loc="left")
    axes.grid(True, alpha=0.3)
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, dpi=110)
