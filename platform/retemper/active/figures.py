"""Plots of calibrations and learning curves, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from retemper.plotting.plots import COLOURS, GREY, MARKERS

BINS = 12


def calibration_png(
    expected: np.ndarray, error: np.ndarray, levels: np.ndarray, coverage: np.ndarray, title: str, path: Path
) -> None:
    """Left: `error` [n] of force components against `expected` error [n], eV/A. Right: confidence.

    The line on the left is the root mean square error of atoms in twelve groups of equal size, by expected error.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    order = np.argsort(expected)
    parts = np.array_split(order, min(BINS, len(order)))
    left.plot(expected, np.maximum(error, 1e-6), ".", color=GREY, alpha=0.35, markersize=3)
    means = [(np.sqrt((expected[p] ** 2).mean()), np.sqrt((error[p] ** 2).mean())) for p in parts]
    left.plot(*zip(*means, strict=True), marker="o", color=COLOURS[0], label="root mean square of a twelfth")
    ends = [float(expected.min()), float(expected.max())]
    left.plot(ends, ends, "--", color="black", linewidth=1, label="as expected")
    left.set(xscale="log", yscale="log", xlabel="expected error of a force component (eV/Å)", ylabel="error (eV/Å)")
    left.legend()
    right.plot(levels, coverage, color=COLOURS[0])
    right.plot([0, 1], [0, 1], "--", color="black", linewidth=1)
    right.set(xlabel="confidence", ylabel="share of errors within", xlim=(0, 1), ylim=(0, 1))
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)


def learning_png(
    curves: Mapping[str, Sequence[tuple[float, float, float, float]]], path: Path, title: str = ""
) -> None:
    """Force RMSE by number of training structures: curves of (structures, mean, low, high), meV/A."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    for k, (name, points) in enumerate(curves.items()):
        n, mean, low, high = (np.array(column) for column in zip(*points, strict=True))
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(n, mean, marker=MARKERS[k % len(MARKERS)], color=colour, label=name)
        axes.fill_between(n, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="training structures", ylabel="force RMSE (meV/Å)", title=title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(ScalarFormatter())
    axes.tick_params(which="minor", labelsize=7)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
