"""Plots for the report (SVG text that takes the page's colours) and for MLflow (PNG files).

Figures are made without pyplot, so that nothing global changes and threads do not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper.plotting.svg import INK, svg
from retemper.records.course import BESIDE
from retemper.records.runs import read_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito (Color Universal Design, 2008), told apart with any colour vision and on both
# backgrounds, extended by two; a marker each as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C6BB1", "#A6761D", "#B22222", "#4C9A2A")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "<", ">")
GREY = "#808890"


@dataclass(frozen=True)
class Point:
    """A strategy in the plane of accuracy and retention, with intervals (low, high)."""

    name: str
    x: float  # target force RMSE, meV/A
    y: float  # retention force RMSE, meV/A
    x_interval: tuple[float, float] | None
    y_interval: tuple[float, float] | None
    on_front: bool
    replay_head: float | None  # retention force RMSE with the replay head, meV/A


def style(names: Sequence[str], name: str) -> tuple[str, str]:
    """Colour and marker of a strategy: the same in every plot of a report."""
    if name not in names:
        return GREY, "*"
    place = list(names).index(name)
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A transparent figure (inches) with one pair of axes in the page's text colour."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: it takes the page's font and can be searched
    matplotlib.rcParams["svg.hashsalt"] = "retemper"  # the same plot gives the same bytes
    drawing = Figure(figsize=(width, height), layout="constrained")
    drawing.patch.set_alpha(0.0)
    axes = drawing.add_subplot()
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
        axes.spines[side].set_alpha(0.5)
    axes.tick_params(which="both", colors=INK, labelsize=9)
    axes.grid(True, color=GREY, alpha=0.22, linewidth=0.6)
    axes.set_axisbelow(True)
    return drawing, axes


def label(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Axis labels and title in the page's text colour."""
    axes.set_xlabel(x, color=INK, fontsize=10)
    axes.set_ylabel(y, color=INK, fontsize=10)
    if title:
        axes.set_title(title, color=INK, fontsize=10, loc="left")


def plain_ticks(axes: Axes, which: str) -> None:
    """Numbers such as 20 and 500 on a logarithmic axis instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    subs: tuple[float, ...] = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    if high / low < 4:
        subs = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


# ------------------------------------------------------------------ the report's plots


def pareto_svg(points: Sequence[Point], names: Sequence[str], kept: str = "retention") -> str:
    """Target force RMSE against that of retention, or what is `kept` otherwise, both logarithmic; a line as front."""
    drawing, axes = figure(7.4, 4.9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    front = sorted((p.x, p.y) for p in points if p.on_front)
    if len(front) > 1:
        corners = [front[0]]
        for x, y in front[1:]:
            corners += [(x, corners[-1][1]), (x, y)]
        axes.plot(*zip(*corners, strict=True), color=INK, linewidth=1.1, linestyle=(0, (4, 3)), alpha=0.7, zorder=1)
    for point in points:
        colour, marker = style(names, point.name)
        x_error, y_error = (
            [[max(0.0, centre - low)], [max(0.0, high - centre)]] if (low, high) != (centre, centre) else None
            for centre, (low, high) in (
                (point.x, point.x_interval or (point.x, point.x)),
                (point.y, point.y_interval or (point.y, point.y)),
            )
        )
        if x_error is not None or y_error is not None:
            axes.errorbar(
                [point.x], [point.y], xerr=x_error, yerr=y_error, color=colour, linewidth=1.2, fmt="none", alpha=0.8
            )
        size = 12 if marker == "*" else 8
        face = colour if point.on_front else "none"
        axes.plot(
            [point.x],
            [point.y],
            marker=marker,
            color=colour,
            markersize=size,
            markerfacecolor=face,
            markeredgewidth=1.6,
            linestyle="none",
            label=point.name + (" (front)" if point.on_front else ""),
            zorder=3,
        )
        if point.replay_head is not None:
            axes.plot(
                [point.x, point.x], [point.y, point.replay_head], color=colour, linewidth=0.8, linestyle=":", zorder=1
            )
            axes.plot(
                [point.x],
                [point.replay_head],
                marker="_",
                color=colour,
                markersize=11,
                markeredgewidth=2,
                linestyle="none",
            )
    for which in ("x", "y"):
        plain_ticks(axes, which)
    label(axes, "target force RMSE (meV/Å), lower is better", f"{kept}, force RMSE (meV/Å), lower is better")
    legend(axes)
    return svg(drawing, "Accuracy against retention")


def legend(axes: Axes, below: bool = False) -> None:
    """Legend to the right of the axes or below them, in the page's text colour."""
    entries = axes.legend(
        loc="upper center" if below else "center left",
        bbox_to_anchor=(0.48, -0.16) if below else (1.01, 0.5),
        ncols=3 if below else 1,
        columnspacing=1.2 if below else None,
        frameon=False,
        fontsize=9,
        handlelength=1.8,
    )
    for text in entries.get_texts():
        text.set_color(INK)


def curves_svg(
    histories: dict[str, list[list[dict[str, float]]]], column: str, title: str, names: Sequence[str]
) -> str | None:
    """A column of ``history.csv`` by epoch: mean over seeds, band from lowest to highest; `None` without data."""
    curves = {name: _by_epoch(seeds, column) for name, seeds in histories.items()}
    curves = {name: by_epoch for name, by_epoch in curves.items() if by_epoch}
    if not curves:
        return None
    drawing, axes = figure(5.6, 4.2)
    axes.set_yscale("log")
    for name, by_epoch in curves.items():
        colour, marker = style(names, name)
        epochs = sorted(by_epoch)
        mean = [sum(by_epoch[epoch]) / len(by_epoch[epoch]) for epoch in epochs]
        spacing = max(1, len(epochs) // 8)
        axes.plot(
            epochs, mean, color=colour, linewidth=1.5, marker=marker, markersize=4.5, markevery=spacing, label=name
        )
        low, high = [min(by_epoch[epoch]) for epoch in epochs], [max(by_epoch[epoch]) for epoch in epochs]
        if low != high:
            axes.fill_between(epochs, low, high, color=colour, alpha=0.16, linewidth=0)
    plain_ticks(axes, "y")
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    label(axes, "epoch", title)
    legend(axes, below=True)
    return svg(drawing, f"{title} by epoch")


def walks_svg(walks: dict[str, list[list[dict[str, float]]]], names: Sequence[str]) -> str | None:
    """Rows of ``walk.csv`` as lines from the foundation to the trained model, one a seed; `None` without data."""
    lines = [(name, walk) for name, seeds in walks.items() for walk in seeds]
    if not lines:
        return None
    drawing, axes = figure(5.6, 4.2)
    shown: set[str] = set()
    for name, walk in lines:
        colour, marker = style(names, name)
        column = next(column for column in walk[0] if column in BESIDE)
        target, beside = ([row[key] for row in walk] for key in ("valid.force_rmse", column))
        of_line = None if name in shown else name
        axes.plot(target, beside, color=colour, linewidth=1.2, marker=marker, markersize=3, label=of_line)
        (k,) = [k for k, row in enumerate(walk) if row["chosen"]]
        axes.scatter(target[k], beside[k], s=90, facecolors="none", edgecolors=colour, zorder=3)
        shown.add(name)
    what = " or ".join(sorted({BESIDE[column] for _, walk in lines for column in walk[0] if column in BESIDE}))
    label(axes, "target force RMSE (meV/Å), lower is better", f"{what}, force RMSE (meV/Å), lower is better")
    legend(axes, below=True)
    return svg(drawing, "The line from the foundation to the trained model")


def _by_epoch(seeds: Iterable[list[dict[str, float]]], column: str) -> dict[int, list[float]]:
    by_epoch: dict[int, list[float]] = {}
    for history in seeds:
        for row in history:
            if row.get(column, 0.0) > 0.0:
                by_epoch.setdefault(int(row["epoch"]), []).append(row[column])
    return by_epoch


def parity_svg(rows: Sequence[tuple[float, float]], colour: str, title: str, limit: float, name: str) -> str:
    """Predicted against reference force components; the dots are one picture, the rest is drawn."""
    drawing, axes = figure(2.9, 2.8)
    _parity(axes, rows, colour, limit, line=INK)
    label(axes, "reference (eV/Å)", "predicted (eV/Å)", title)
    return svg(drawing, f"Parity of forces, {name}")


def _parity(axes: Any, rows: Sequence[tuple[float, float]], colour: str, limit: float, line: str) -> None:
    axes.plot([-limit, limit], [-limit, limit], color=line, linewidth=0.8, alpha=0.6)
    x, y = zip(*rows, strict=True) if rows else ((), ())
    axes.scatter(x, y, s=5, color=colour, alpha=0.35, linewidths=0, rasterized=True)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(-limit, limit)
    axes.set_aspect("equal")


def parity_limit(rows: Iterable[tuple[float, float]]) -> float:
    """Half width (eV/A) of a parity plot that shows all but the outermost 0.5 % of the points."""
    largest = sorted(max(abs(x), abs(y)) for x, y in rows)
    return 1.05 * largest[min(len(largest) - 1, int(0.995 * len(largest)))] if largest else 1.0


def read_parity(path: Path) -> dict[tuple[int, str], list[tuple[float, float]]]:
    """Pairs (reference, predicted) in eV/A of a ``parity.csv``, by seed and set."""
    pairs: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for row in read_table(path):
        pairs.setdefault((int(row["seed"]), row["set"]), []).append((float(row["reference"]), float(row["predicted"])))
    return pairs


# ------------------------------------------------------------------ MLflow's plots


def learning_curve_png(history: Sequence[dict[str, float]], path: Path, title: str) -> None:
    """Losses by epoch, and force RMSE of target and replay head, into a PNG file."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = drawing.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axes, columns, unit in (
        (left, ("train_loss", "valid_loss", "valid.loss", "valid_replay.loss"), "loss"),
        (right, ("valid.force_rmse", "valid_replay.force_rmse"), "force RMSE, validation (meV/Å)"),
    ):
        for column in columns:
            if any(row.get(column, 0.0) > 0.0 for row in history):
                axes.plot(epochs, [row.get(column, float("nan")) for row in history], label=column, marker=".")
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.grid(True, alpha=0.3)
        if axes.lines:
            axes.legend()
    drawing.suptitle(title)
    drawing.savefig(path, dpi=110)


def parity_png(table: Path, seed: int, folder: Path, title: str) -> list[Path]:
    """One PNG file a set of ``parity.csv`` for a seed; returns their paths."""
    from matplotlib.figure import Figure

    paths = []
    for (number, name), rows in sorted(read_parity(table).items()):
        if number != seed:
            continue
        drawing = Figure(figsize=(4.6, 4.4), layout="constrained")
        axes = drawing.subplots()
        _parity(axes, rows, COLOURS[0], parity_limit(rows), line="black")
        axes.set_xlabel("reference force (eV/Å)")
        axes.set_ylabel("predicted force (eV/Å)")
        axes.set_title(f"{title}, seed {seed}: {name}")
        paths.append(folder / f"parity-{name}.png")
        drawing.savefig(paths[-1], dpi=110)
    return paths
