"""The headline table: every strategy and the foundation, with intervals, best values and the Pareto front.

Intervals are those of the mean over seeds for other groups of test frames and other seeds
(`retemper.promotion.compare`, as the gates). Whether a strategy is distinguished from the best of a
column is judged on the same frames, paired: intervals of two strategies overlap long before their ratio is unknown.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from retemper.config.metric_names import DRIFT_OF, RATIOS, set_of
from retemper.core.output import table
from retemper.evaluation.statistics import FEWEST_GROUPS, Interval, Scatter, two_sided
from retemper.promotion import compare as paired
from retemper.records.evaluation import Estimate
from retemper.records.runs import FOUNDATION, Results, pareto_front
from retemper.registry.measurements import FRAMES, Errors, read_frames_csv

RETENTION, DRIFT = "retention.force_rmse", "drift.force_rmse"
UNTOLD = 1e4  # upper bound of an interval over the lower, above which they are not shown
Recipes = dict[str, list[Errors]]  # strategy -> errors on one set, one entry a seed


@dataclass(frozen=True)
class Column:
    """One quantity of the table. Of a metric lower is better, and the best is marked."""

    key: str  # a metric's name, or what `read` gives
    title: str
    under: str  # second line of the heading: unit or which head
    read: Callable[[Results, str], Estimate | None] | None = None
    scale: float = 1.0  # shown value by stored value
    terminal: bool = True  # whether it is shown there

    @property
    def is_metric(self) -> bool:
        """Whether it is a metric."""
        return self.read is None

    @property
    def over_foundation(self) -> bool:
        """Whether the column is a ratio to the foundation's own."""
        return self.key in RATIOS

    @property
    def errors(self) -> tuple[str, str] | None:
        """Set and quantity whose errors by frame are behind it."""
        quantity = "force_rmse" if self.over_foundation else self.key.rpartition(".")[2]
        return (set_of(self.key), quantity) if self.is_metric else None

    def value(self, results: Results, name: str) -> Estimate | None:
        """What stands in the row of a strategy."""
        return results.numbers(name).get(self.key) if self.read is None else self.read(results, name)


@dataclass(frozen=True)
class Comparison:
    """Rows by name (foundation first), each with a value or `None` for every column."""

    columns: tuple[Column, ...]
    rows: dict[str, dict[str, Estimate | None]]
    best: dict[str, str]  # column -> strategy with the lowest mean
    tied: dict[str, list[str]]  # column -> strategies that are not distinguished from the best
    front: list[str]  # names on the Pareto front of target force RMSE and what is `forgotten`
    recipes: dict[str, Recipes] = field(default_factory=dict)  # column -> errors by frame
    elsewhere: tuple[str, ...] = ()  # strategies measured on other frames than the first row: their errors are left out

    def value(self, name: str, key: str) -> Estimate | None:
        """One cell; `None` where it was not measured or the row is not there."""
        return self.rows.get(name, {}).get(key)

    def ratio(self, name: str, other: str, key: str, other_key: str | None = None) -> Interval | None:
        """Error of `name` over that of `other` on the same frames (paired, 95 %); `None` without errors by frame.

        `other_key`: another column of the same frames for `other`.
        """
        column = next(column for column in self.columns if column.key == key)
        errors, other_errors = self.recipes.get(key, {}).get(name), self.recipes.get(other_key or key, {}).get(other)
        if column.errors is None or errors is None or other_errors is None:
            return None
        scatter = _scatter(self.recipes[key], column.errors[1])
        names = [strategy for strategy in dict.fromkeys((name, other)) if strategy != FOUNDATION]
        return _ratio(errors, other_errors, column.errors[1], two_sided(0.95), scatter, names)

    def worse(self, name: str, other: str, key: str, other_key: str | None = None) -> bool:
        """Whether the error of `name` is shown to be larger than that of `other`, as `ratio`."""
        ratio = self.ratio(name, other, key, other_key)
        return ratio is not None and ratio.groups >= FEWEST_GROUPS and ratio.low > 1.0

    @property
    def forgotten(self) -> str:
        """The column that tells how much: the error on the retention set, or the drift from the foundation."""
        return DRIFT if any(row.get(DRIFT) is not None for row in self.rows.values()) else RETENTION

    @property
    def strategies(self) -> list[str]:
        """Rows other than the foundation."""
        return [name for name in self.rows if name != FOUNDATION]


def _share(results: Results, name: str) -> Estimate | None:
    shares = [t.outcome.trainable_share for t in results.trainings.get(name, {}).values() if t.outcome]
    return Estimate(value=statistics.fmean(shares)) if shares else None


def _cpu_seconds(results: Results, name: str) -> Estimate | None:
    times = [t.outcome.cpu_seconds for t in results.trainings.get(name, {}).values() if t.outcome]
    if not times:
        return None
    return Estimate(value=statistics.fmean(times), std=statistics.stdev(times) if len(times) > 1 else None)


COLUMNS = (
    Column("target.energy_rmse", "Target energy", "meV/atom"),
    Column("target.force_rmse", "Target forces", "meV/Å"),
    Column("retention.force_rmse", "Retention forces", "meV/Å", terminal=False),
    Column("forgetting_ratio", "Forgetting", "target head"),
    Column("forgetting_ratio_replay_head", "Forgetting", "replay head"),
    Column("drift.force_rmse", "Drift forces", "meV/Å, target head"),
    Column("drift_replay_head.force_rmse", "Drift forces", "meV/Å, replay head"),
    Column("trainable_share", "Trained", "%", _share, 100.0, terminal=False),
    Column("training_cpu_seconds", "CPU time", "s", _cpu_seconds),
)


def _of_kept(head: str) -> Column:
    return Column(f"{DRIFT_OF}{head}.force_rmse", "Drift forces", f"meV/Å, head {head}", terminal=False)


def compare(results: Results) -> Comparison:
    """Build the table from what has been evaluated or trained; rows in the order of ``params.yaml``.

    The foundation is the reference: it is never marked as best. It can be on the Pareto front,
    because to leave it as it is is a choice as well.
    """
    columns = (*COLUMNS, *(_of_kept(head) for head in results.settings.replay.heads))
    names = [FOUNDATION, *results.settings.strategies]
    present = [name for name in names if name in results.evaluations or name in results.summaries]
    elsewhere = _elsewhere(results)
    rows = {
        name: {
            column.key: None if column.errors and name in elsewhere else column.value(results, name)
            for column in columns
        }
        for name in present
    }
    comparable = [name for name in present if name not in elsewhere]
    by_frame = {name: read_frames_csv(results.project.evaluation(name) / FRAMES) for name in comparable}
    recipes = {column.key: _recipes(by_frame, column) for column in columns}
    best: dict[str, str] = {}
    for column in columns:
        values = {n: v for n, row in rows.items() if n != FOUNDATION and (v := row[column.key]) is not None}
        for name, value in values.items():
            confidence = results.settings.evaluate.confidence
            rows[name][column.key] = _with_seeds(value, name, recipes[column.key], column, confidence)
        if column.is_metric and len(values) > 1:
            best[column.key] = min(values, key=lambda name: values[name].value)
    comparison = Comparison(columns, rows, best, {}, [], recipes, elsewhere)
    points = {
        name: (x.value, y.value)
        for name, row in rows.items()
        if (x := row["target.force_rmse"]) is not None and (y := row[comparison.forgotten]) is not None
    }
    comparison.front.extend(pareto_front(points))
    for key, first in best.items():
        rivals = [name for name, row in rows.items() if name not in (FOUNDATION, first) and row[key] is not None]
        comparison.tied[key] = [name for name in rivals if not comparison.worse(name, first, key)]
    return comparison


def _elsewhere(results: Results) -> tuple[str, ...]:
    """Strategies whose evaluation is of other test or retention frames than the foundation's, else the first one's."""
    frames = {
        name: tuple(evaluation.identity.get(part) for part in ("target", "retention"))
        for name, evaluation in results.evaluations.items()
    }
    first = next(iter(frames.values()), None)
    return tuple(name for name, hashes in frames.items() if hashes != first)


def _recipes(by_frame: Mapping[str, Mapping[int, Mapping[str, Errors]]], column: Column) -> Recipes:
    """Errors by strategy and seed on the set behind `column`; of those that were measured there."""
    if column.errors is None:
        return {}
    part = "retention" if column.over_foundation else column.errors[0]
    recipes = {
        name: [sets[column.errors[0]] for _, sets in sorted(seeds.items()) if column.errors[0] in sets]
        for name, seeds in by_frame.items()
        if name != FOUNDATION
    }
    recipes[FOUNDATION] = [sets[part] for sets in by_frame.get(FOUNDATION, {}).values() if part in sets]
    return {name: seeds for name, seeds in recipes.items() if seeds}


def _scatter(recipes: Recipes, quantity: str) -> Scatter | None:
    scatter = paired.scatter({name: seeds for name, seeds in recipes.items() if name != FOUNDATION}, quantity)
    return scatter if scatter.known else None


def _with_seeds(value: Estimate, name: str, recipes: Recipes, column: Column, confidence: float) -> Estimate:
    """The interval of a mean for other groups and other seeds; without errors by frame what the evaluation said."""
    if column.errors is None or name not in recipes or (column.over_foundation and FOUNDATION not in recipes):
        return value
    quantity, bound = column.errors[1], two_sided(confidence)
    scatter = _scatter(recipes, quantity)
    if column.over_foundation:
        estimate = _ratio(recipes[name], recipes[FOUNDATION], quantity, bound, scatter, [name])
    else:
        estimate = paired.recipe_error(recipes[name], quantity, bound, scatter, name)
    if not math.isfinite(estimate.high):
        return value.model_copy(update={"low": None, "high": None})
    bounds = {
        side: value.value * limit / estimate.value for side, limit in (("low", estimate.low), ("high", estimate.high))
    }
    return value.model_copy(update=bounds)


def _ratio(
    errors: Sequence[Errors],
    reference: Sequence[Errors],
    quantity: str,
    bound: float,
    scatter: Scatter | None,
    names: Sequence[str],
) -> Interval:
    if scatter is None:
        return paired.over_groups(errors[0], reference[0], quantity, bound)
    return paired.over_seeds(errors, reference, quantity, bound, scatter, names)


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


def mean_text(column: Column, value: Estimate) -> str:
    """The mean in the column's unit."""
    return number(value.value * column.scale)


def untold(value: Estimate) -> bool:
    """Whether the interval is so wide that its bounds are no numbers to read: that of two groups can be."""
    return value.low is not None and value.high is not None and value.high > UNTOLD * value.low


def interval(column: Column, value: Estimate) -> str | None:
    """``low – high`` in the column's unit, or ``± std`` where there is no interval; decimals as the mean."""
    mean = value.value * column.scale
    if value.low is not None and value.high is not None:
        if untold(value):
            return "too few groups"
        return f"{number(value.low * column.scale, mean)} – {number(value.high * column.scale, mean)}"
    return f"± {number(value.std * column.scale, mean)}" if value.std is not None else None


def terminal(comparison: Comparison) -> str:
    """The table for a terminal: mean and interval, ``*`` best, ``~`` not distinguished from it, ``P`` Pareto front.

    What a terminal has no room for (retention forces, which the forgetting ratio tells as well) is in the report; of
    drift and forgetting ratio there is one.
    """
    absent = "drift" if comparison.forgotten == RETENTION else "forgetting"
    columns = [c for c in comparison.columns if c.terminal and not c.key.startswith(absent)]
    lines = [["  strategy", *(f"{column.title} \n{column.under.replace('Å', 'A')} " for column in columns)]]
    for name, row in comparison.rows.items():
        cells = [("P " if name in comparison.front else "  ") + name]
        for column in columns:
            value = row[column.key]
            if value is None:
                cells.append("- ")
                continue
            text = mean_text(column, value)
            if value.low is not None and value.high is not None:
                text += f" ({interval(column, value)})"
            mark = " "
            if comparison.best.get(column.key) == name:
                mark = "*"
            elif name in comparison.tied.get(column.key, ()):
                mark = "~"
            cells.append(text + mark)
        lines.append(cells)
    return table(lines, numbers=True, rule=True)
