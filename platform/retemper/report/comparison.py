"""The headline table: every strategy and the foundation, with intervals, best values and the Pareto front.

Intervals
---------
``metrics.json`` gives the interval of a mean for other test structures (bootstrap), and the
standard deviation over seeds. A claim about a strategy must survive both, so the half widths
are added in quadrature: h^2 = h_frames^2 + (t r m / sqrt(n))^2, with m the mean over n seeds and
r the relative standard deviation over seeds, pooled over the strategies that have several:
r^2 = sum_i (n_i - 1) r_i^2 / sum_i (n_i - 1), t Student's quantile for sum_i (n_i - 1) degrees of
freedom. Pooling assumes that seeds scatter by about the same share of the error in every
strategy; two or three seeds alone would tell next to nothing (D. C. Montgomery, Design and
Analysis of Experiments, section 3.3: pooled variance in a one-way layout).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from retemper.results import FOUNDATION, Results, finite, pareto_front, summary_value


@dataclass(frozen=True)
class Value:
    """A mean over seeds, the standard deviation over seeds, and the interval of the mean."""

    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None

    def overlaps(self, other: Value) -> bool:
        """Whether the two intervals have a point in common; `False` where one has no interval."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return False
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Column:
    """One quantity of the table. `judged`: lower is better, and the best is marked."""

    key: str
    title: str
    under: str  # second line of the heading: unit or which head
    judged: bool
    read: Callable[[Results, str], Value | None]
    scale: float = 1.0  # shown value by stored value


@dataclass(frozen=True)
class Comparison:
    """Rows by name (foundation first), each with a value or `None` for every column."""

    columns: tuple[Column, ...]
    rows: dict[str, dict[str, Value | None]]
    best: dict[str, str]  # column -> strategy with the lowest mean
    tied: dict[str, list[str]]  # column -> strategies whose interval overlaps with that of the best
    front: list[str]  # names on the Pareto front of target and retention force RMSE

    def value(self, name: str, key: str) -> Value | None:
        """One cell; `None` where it was not measured or the row is not there."""
        return self.rows.get(name, {}).get(key)

    @property
    def strategies(self) -> list[str]:
        """Rows other than the foundation."""
        return [name for name in self.rows if name != FOUNDATION]


def _measured(*path: str) -> Callable[[Results, str], Value | None]:
    def read(results: Results, name: str) -> Value | None:
        found = summary_value(results.evaluations.get(name), *path)
        if found is None or found["mean"] is None:
            return None
        return Value(found["mean"], *(finite(found.get(bound)) for bound in ("std", "low", "high")))

    return read


def _share(results: Results, name: str) -> Value | None:
    shares = [t.trainable_share for t in results.trainings.get(name, {}).values() if t.trainable_share is not None]
    return Value(statistics.fmean(shares)) if shares else None


def _seconds(results: Results, name: str) -> Value | None:
    times = [t.outcome["seconds"] for t in results.trainings.get(name, {}).values() if "seconds" in t.outcome]
    if not times:
        return None
    return Value(statistics.fmean(times), statistics.stdev(times) if len(times) > 1 else None)


COLUMNS = (
    Column("target_energy_rmse", "Target energy", "meV/atom", True, _measured("target", "energy_rmse")),
    Column("target_force_rmse", "Target forces", "meV/Å", True, _measured("target", "force_rmse")),
    Column("retention_force_rmse", "Retention forces", "meV/Å", True, _measured("retention", "force_rmse")),
    Column("forgetting_ratio", "Forgetting", "target head", True, _measured("forgetting_ratio")),
    Column(
        "forgetting_ratio_replay_head", "Forgetting", "replay head", True, _measured("forgetting_ratio_replay_head")
    ),
    Column("trainable_share", "Trained", "%", False, _share, 100.0),
    Column("training_seconds", "Time", "s", False, _seconds),
)


def compare(results: Results) -> Comparison:
    """Build the table from what has been evaluated or trained; rows in the order of ``params.yaml``.

    The foundation is the reference: it is never marked as best. It can be on the Pareto front,
    because to leave it as it is is a choice as well.
    """
    names = [FOUNDATION, *results.settings.strategies]
    there = [name for name in names if name in results.evaluations or name in results.summaries]
    rows = {name: {column.key: column.read(results, name) for column in COLUMNS} for name in there}
    seeds = {name: len(results.evaluations.get(name, {}).get("seeds", {})) for name in there}
    for column in COLUMNS:
        values = {n: v for n, row in rows.items() if n != FOUNDATION and (v := row[column.key]) is not None}
        for name, value in with_seeds(values, seeds, results.settings.evaluate.confidence).items():
            rows[name][column.key] = value
    best: dict[str, str] = {}
    tied: dict[str, list[str]] = {}
    for column in COLUMNS:
        values = {n: v for n, row in rows.items() if n != FOUNDATION and (v := row[column.key]) is not None}
        if column.judged and len(values) > 1:
            first = min(values, key=lambda name: values[name].mean)
            best[column.key] = first
            tied[column.key] = [n for n, v in values.items() if n != first and v.overlaps(values[first])]
    points = {
        name: (x.mean, y.mean)
        for name, row in rows.items()
        if (x := row["target_force_rmse"]) is not None and (y := row["retention_force_rmse"]) is not None
    }
    return Comparison(COLUMNS, rows, best, tied, pareto_front(points))


def with_seeds(values: Mapping[str, Value], seeds: Mapping[str, int], confidence: float) -> dict[str, Value]:
    """Widen the intervals of one column by the spread over seeds (formula at the top of this module).

    Parameters
    ----------
    values : mapping of strategy to Value
        Means of positive quantities with intervals over test structures.
    seeds : mapping of strategy to int
        Seeds behind each mean.
    confidence : float
        0 to 1, that of the intervals.
    """
    spread = {
        name: v.std / v.mean for name, v in values.items() if v.std is not None and v.mean > 0 and seeds[name] > 1
    }
    freedom = sum(seeds[name] - 1 for name in spread)
    if not freedom:
        return dict(values)
    from scipy.stats import t as student

    pooled = math.sqrt(sum((seeds[name] - 1) * r**2 for name, r in spread.items()) / freedom)
    quantile = float(student.ppf(0.5 + confidence / 2, freedom))
    widened = {}
    for name, value in values.items():
        if value.low is None or value.high is None:
            widened[name] = value
            continue
        half = quantile * pooled * value.mean / math.sqrt(seeds[name])
        low = value.mean - math.hypot(value.mean - value.low, half)
        widened[name] = replace(value, low=max(0.0, low), high=value.mean + math.hypot(value.high - value.mean, half))
    return widened


# ------------------------------------------------------------------ as text


def number(value: float, like: float | None = None) -> str:
    """Three significant digits without exponent: 0.0123, 4.56, 78.9, 1,234; or as many decimals as `like` gets."""
    size = abs(value if like is None else like)
    if size >= 99.95 or (value == 0 and like is None):
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    if size >= 0.9995:
        return f"{value:.2f}"
    return f"{value:.3g}" if size >= 1e-4 else f"{value:.1e}"


def shown(column: Column, value: Value) -> str:
    """The mean in the column's unit."""
    return number(value.mean * column.scale)


def interval(column: Column, value: Value) -> str | None:
    """``low – high`` in the column's unit, or ``± std`` where there is no interval; decimals as the mean."""
    mean = value.mean * column.scale
    if value.low is not None and value.high is not None:
        return f"{number(value.low * column.scale, mean)} – {number(value.high * column.scale, mean)}"
    return f"± {number(value.std * column.scale, mean)}" if value.std is not None else None


def terminal(comparison: Comparison) -> str:
    """The table for a terminal: mean and interval, ``*`` best, ``~`` overlaps with the best, ``P`` Pareto front."""
    lines = [
        ["  strategy", *(f"{column.title} " for column in comparison.columns)],
        ["", *(column.under.replace("Å", "A") + " " for column in comparison.columns)],
    ]
    for name, row in comparison.rows.items():
        cells = [("P " if name in comparison.front else "  ") + name]
        for column in comparison.columns:
            value = row[column.key]
            if value is None:
                cells.append("- ")
                continue
            text = shown(column, value)
            if value.low is not None and value.high is not None:
                half = (value.high - value.low) / 2
                text += f" ± {number(half * column.scale, value.mean * column.scale)}"
            mark = " "
            if comparison.best.get(column.key) == name:
                mark = "*"
            elif name in comparison.tied.get(column.key, ()):
                mark = "~"
            cells.append(text + mark)
        lines.append(cells)
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    rows = []
    for line in lines:
        numbers = (text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
        rows.append("  ".join([line[0].ljust(widths[0]), *numbers]))
    rule = "-" * len(rows[0])
    return "\n".join([rule, *rows[:2], rule, *rows[2:], rule])
