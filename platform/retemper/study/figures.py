"""Plots of a study as PNG files: learning curves, and accuracy against retention, a panel a system."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retemper.plotting.plots import style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist

ACROSS = 3  # panels in a row


def learning_png(rows: pd.DataFrame, strategies: Sequence[str], path: Path, title: str) -> None:
    """Force error on the target against the number of training structures; mean and spread (a standard deviation
    of the logarithm) over whatever else the rows differ in.
    """
    figure, panels = _panels(rows)
    for axes, (system, system_rows) in zip(panels, rows.groupby("system"), strict=True):
        for strategy in strategies:
            points = system_rows[system_rows["strategy"] == strategy].groupby("train")["target_force_rmse"]
            if not points.ngroups:
                continue
            logs = [np.log(group.to_numpy(float)) for _, group in points]
            n = np.array([float(str(size)) for size in points.groups])
            mean = np.array([values.mean() for values in logs])
            spread = np.array([values.std(ddof=1) if len(values) > 1 else 0.0 for values in logs])
            colour, marker = style(strategies, strategy)
            axes.plot(n, np.exp(mean), marker=marker, color=colour, label=strategy, linewidth=1.2, markersize=5)
            axes.fill_between(n, np.exp(mean - spread), np.exp(mean + spread), color=colour, alpha=0.12, linewidth=0)
        axes.axhline(_mean(system_rows["foundation_target_force_rmse"]), color="black", linestyle=":", linewidth=1)
        axes.set(xscale="log", yscale="log", title=system, xlabel="training structures", ylabel="target forces (meV/Å)")
    _save(figure, panels, path, f"{title}; dotted: the foundation")


KEPT = {"retention_force_rmse": "pretraining forces (meV/Å)", "drift_force_rmse": "drift of forces (meV/Å)"}


def pareto_png(rows: pd.DataFrame, kept: str, strategies: Sequence[str], path: Path, title: str) -> None:
    """What was kept, a column of `KEPT`, against the force error on the target, a point a run.

    The foundation itself has no drift.
    """
    figure, panels = _panels(rows)
    for axes, (system, system_rows) in zip(panels, rows.groupby("system"), strict=True):
        for strategy in strategies:
            points = system_rows[system_rows["strategy"] == strategy]
            colour, marker = style(strategies, strategy)
            x, y = points["target_force_rmse"], points[kept]
            axes.plot(x, y, marker, color=colour, label=strategy, markersize=5, alpha=0.75)
        if f"foundation_{kept}" in rows:
            errors = [_mean(system_rows[f"foundation_{column}"]) for column in ("target_force_rmse", kept)]
            axes.plot(*([value] for value in errors), "*", color="black", label="foundation", markersize=9)
        axes.set(xscale="log", yscale="log", title=system)
        axes.set(xlabel="target forces (meV/Å)", ylabel=KEPT[kept])
    _save(figure, panels, path, title)


def _mean(column: pd.Series) -> float:
    """Geometric mean."""
    return float(np.exp(np.log(column.to_numpy(float)).mean()))


def _panels(rows: pd.DataFrame) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    number = rows["system"].nunique()
    across = min(ACROSS, number)
    down = math.ceil(number / across)
    figure = Figure(figsize=(4.2 * across, 3.6 * down + 0.5), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).ravel())
    for empty in panels[number:]:
        empty.set_axis_off()
    return figure, panels[:number]


def _save(figure: Any, panels: Sequence[Any], path: Path, title: str) -> None:
    from matplotlib.ticker import LogFormatter

    for axes in panels:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(LogFormatter(labelOnlyBase=False))
            axis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.8)))
        axes.tick_params(which="both", labelsize=7)
        axes.grid(True, which="both", alpha=0.25)
    handles: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=8)
    figure.suptitle(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
