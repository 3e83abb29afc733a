"""The headline table: every strategy and the foundation, with intervals, best values and the Pareto front.

Intervals are those of the mean over seeds for other groups of test frames and other seeds
(`retemper.promotion.compare`, as the gates). Whether a strategy is distinguished from the best of a
column is judged on the same frames, paired: intervals of two strategies overlap long before their ratio is unknown.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from retemper.evaluation.statistics import FEWEST_GROUPS, Interval, Scatter, two_sided
from retemper.promotion import compare as paired
from retemper.records.runs import FOUNDATION, Results, finite, pareto_front, summary_value
from retemper.registry.measurements import FRAMES, Errors, read_frames_csv

Recipes = dict[str, list[Errors]]  # strategy -> errors on one set, one entry a seed


@dataclass(frozen=True)
class Value:
    """A mean over seeds, the standard deviation over seeds, and the interval of the mean."""

    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Column:
    """One quantity of the table. `judged`: lower is better, and the best is marked."""

    key: str
    title: str
    under: str  # second line of the heading: unit or which head
    judged: bool
    read: Callable[[Results, str], Value | None]
    scale: float = 1.0  # shown value by stored value
    errors: tuple[str, str] | None = None  # set and quantity whose errors by frame are behind it
    over_foundation: bool = False  # whether the column is a ratio to the foundation's own
    terminal: bool = True  # whether it is shown there


@dataclass(frozen=True)
class Comparison:
    """Rows by name (foundation first), each with a value or `None` for every column."""

    columns: tuple[Column, ...]
    rows: dict[str, dict[str, Value | None]]
    best: dict[str, str]  # column -> strategy with the lowest mean
    tied: dict[str, list[str]]  # column -> strategies that are not distinguished from the best
    front: list[str]  # names on the Pareto front of target and retention force RMSE
    recipes: dict[str, Recipes] = field(default_factory=dict)  # column -> errors by frame
    elsewhere: tuple[str, ...] = ()  # strategies measured on other frames than the first row: their errors are left out

    def value(self, name: str, key: str) -> Value | None:
        """One cell; `None` where it was not measured or the row is not there."""
        return self.rows.get(name, {}).get(key)

    def worse(self, name: str, other: str, key: str, other_key: str | None = None) -> bool:
        """Whether the error of `name` is shown to be larger than that of `other`, on the same frames (paired, 95 %).

        `other_key`: another column of the same frames for `other`.
        """
        column = next(column for column in self.columns if column.key == key)
        ours, theirs = self.recipes.get(key, {}).get(name), self.recipes.get(other_key or key, {}).get(other)
        if column.errors is None or ours is None or theirs is None:
            return False
        scatter = _scatter(self.recipes[key], column.errors[1])
        names = [one for one in dict.fromkeys((name, other)) if one != FOUNDATION]
        found = _ratio(ours, theirs, column.errors[1], two_sided(0.95), scatter, names)
        return found.groups >= FEWEST_GROUPS and found.low > 1.0

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
    shares = [t.outcome.trainable_share for t in results.trainings.get(name, {}).values() if t.outcome]
    return Value(statistics.fmean(shares)) if shares else None


def _cpu_seconds(results: Results, name: str) -> Value | None:
    times = [t.outcome.cpu_seconds for t in results.trainings.get(name, {}).values() if t.outcome]
    if not times:
        return None
    return Value(statistics.fmean(times), statistics.stdev(times) if len(times) > 1 else None)


TARGET_ENERGY, TARGET_FORCES, RETENTION, REPLAY_HEAD = (
    ("target", "energy_rmse"),
    ("target", "force_rmse"),
    ("retention", "force_rmse"),
    ("retention_replay_head", "force_rmse"),
)
COLUMNS = (
    Column("target.energy_rmse", "Target energy", "meV/atom", True, _measured(*TARGET_ENERGY), errors=TARGET_ENERGY),
    Column("target.force_rmse", "Target forces", "meV/Å", True, _measured(*TARGET_FORCES), errors=TARGET_FORCES),
    Column(
        "retention.force_rmse",
        "Retention forces",
        "meV/Å",
        True,
        _measured(*RETENTION),
        errors=RETENTION,
        terminal=False,
    ),
    Column(
        "forgetting_ratio",
        "Forgetting",
        "target head",
        True,
        _measured("forgetting_ratio"),
        errors=RETENTION,
        over_foundation=True,
    ),
    Column(
        "forgetting_ratio_replay_head",
        "Forgetting",
        "replay head",
        True,
        _measured("forgetting_ratio_replay_head"),
        errors=REPLAY_HEAD,
        over_foundation=True,
    ),
    Column("trainable_share", "Trained", "%", False, _share, 100.0, terminal=False),
    Column("training_cpu_seconds", "CPU time", "s", False, _cpu_seconds),
)


def compare(results: Results) -> Comparison:
    """Build the table from what has been evaluated or trained; rows in the order of ``params.yaml``.

    The foundation is the reference: it is never marked as best. It can be on the Pareto front,
    because to leave it as it is is a choice as well.
    """
    names = [FOUNDATION, *results.settings.strategies]
    there = [name for name in names if name in results.evaluations or name in results.summaries]
    elsewhere = _elsewhere(results)
    rows = {
        name: {
            column.key: None if column.errors and name in elsewhere else column.read(results, name)
            for column in COLUMNS
        }
        for name in there
    }
    alike = [name for name in there if name not in elsewhere]
    by_frame = {name: read_frames_csv(results.root / "runs/evaluate" / name / FRAMES) for name in alike}
    every = {column.key: _recipes(by_frame, column) for column in COLUMNS}
    best: dict[str, str] = {}
    for column in COLUMNS:
        values = {n: v for n, row in rows.items() if n != FOUNDATION and (v := row[column.key]) is not None}
        for name, value in values.items():
            confidence = results.settings.evaluate.confidence
            rows[name][column.key] = _with_seeds(value, name, every[column.key], column, confidence)
        if column.judged and len(values) > 1:
            best[column.key] = min(values, key=lambda name: values[name].mean)
    points = {
        name: (x.mean, y.mean)
        for name, row in rows.items()
        if (x := row["target.force_rmse"]) is not None and (y := row["retention.force_rmse"]) is not None
    }
    found = Comparison(COLUMNS, rows, best, {}, pareto_front(points), every, elsewhere)
    for key, first in best.items():
        others = [name for name, row in rows.items() if name not in (FOUNDATION, first) and row[key] is not None]
        found.tied[key] = [name for name in others if not found.worse(name, first, key)]
    return found


def _elsewhere(results: Results) -> tuple[str, ...]:
    """Strategies whose evaluation is of other test or retention frames than the foundation's, else the first one's."""
    frames = {
        name: tuple(evaluation.get("identity", {}).get(part) for part in ("target", "retention"))
        for name, evaluation in results.evaluations.items()
    }
    first = next(iter(frames.values()), None)
    return tuple(name for name, own in frames.items() if own != first)


def _recipes(by_frame: Mapping[str, Mapping[int, Mapping[str, Errors]]], column: Column) -> Recipes:
    """Errors by strategy and seed on the set behind `column`; of those that were measured there."""
    if column.errors is None:
        return {}
    part = "retention" if column.over_foundation else column.errors[0]
    found = {
        name: [sets[column.errors[0]] for _, sets in sorted(seeds.items()) if column.errors[0] in sets]
        for name, seeds in by_frame.items()
        if name != FOUNDATION
    }
    found[FOUNDATION] = [sets[part] for sets in by_frame.get(FOUNDATION, {}).values() if part in sets]
    return {name: seeds for name, seeds in found.items() if seeds}


def _scatter(recipes: Recipes, quantity: str) -> Scatter | None:
    found = paired.scatter({name: seeds for name, seeds in recipes.items() if name != FOUNDATION}, quantity)
    return found if found.known else None


def _with_seeds(value: Value, name: str, recipes: Recipes, column: Column, confidence: float) -> Value:
    """The interval of a mean for other groups and other seeds; without errors by frame what the evaluation said."""
    if column.errors is None or name not in recipes or (column.over_foundation and FOUNDATION not in recipes):
        return value
    quantity, bound = column.errors[1], two_sided(confidence)
    scatter = _scatter(recipes, quantity)
    if column.over_foundation:
        found = _ratio(recipes[name], recipes[FOUNDATION], quantity, bound, scatter, [name])
    else:
        found = paired.of_recipe(recipes[name], quantity, bound, scatter, name)
    if not math.isfinite(found.high):
        return replace(value, low=None, high=None)
    return replace(value, low=value.mean * found.low / found.value, high=value.mean * found.high / found.value)


def _ratio(
    ours: Sequence[Errors],
    theirs: Sequence[Errors],
    quantity: str,
    bound: float,
    scatter: Scatter | None,
    names: Sequence[str],
) -> Interval:
    if scatter is None:
        return paired.over_groups(ours[0], theirs[0], quantity, bound)
    return paired.over_seeds(ours, theirs, quantity, bound, scatter, names)


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
    """The table for a terminal: mean and interval, ``*`` best, ``~`` not distinguished from it, ``P`` Pareto front.

    What a terminal has no room for (retention forces, which the forgetting ratio tells as well) is in the report.
    """
    columns = [column for column in comparison.columns if column.terminal]
    lines = [
        ["  strategy", *(f"{column.title} " for column in columns)],
        ["", *(column.under.replace("Å", "A") + " " for column in columns)],
    ]
    for name, row in comparison.rows.items():
        cells = [("P " if name in comparison.front else "  ") + name]
        for column in columns:
            value = row[column.key]
            if value is None:
                cells.append("- ")
                continue
            text = shown(column, value)
            if value.low is not None and value.high is not None:
                text += f" ({interval(column, value)})"
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
