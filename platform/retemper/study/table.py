"""The results table of a study: a row a run, from the files under ``studies/results``.

The table is in git and the results are not: the numbers of a finished run without a file stay as the table has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.records.result import Failure, Result
from retemper.study import groups, result_files
from retemper.study.places import RESULTS
from retemper.study.plan import Run, values
from retemper.study.spec import AXES, Level, Study

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path("studies")
FINISHED, FAILED, WAITING = "finished", "failed", "waiting"
VALUE = "value of "  # column with what a dotted axis is in a run, its levels resolved
CELL = "_groups"  # column of an error with this at its end: the error by group, see `groups`
# column: key among the values of a result; errors have .low and .high, the 95 % interval over groups of structures
MEASURED = {
    "target_energy_rmse": "target.energy_rmse",
    "target_force_rmse": "target.force_rmse",
    "retention_energy_rmse": "retention.energy_rmse",
    "retention_force_rmse": "retention.force_rmse",
    "replay_head_force_rmse": "retention_replay_head.force_rmse",
    "forgetting_ratio": "forgetting_ratio",
}
# The same of runs without labels of the pretraining domain, which have these columns in place of retention's.
DRIFT = {
    "drift_energy_rmse": "drift.energy_rmse",
    "drift_force_rmse": "drift.force_rmse",
    "drift_replay_head_force_rmse": "drift_replay_head.force_rmse",
}
INTERVALS = ("target_force_rmse", "retention_force_rmse", "drift_force_rmse")
OF_FOUNDATION = ("target_energy_rmse", "target_force_rmse", "retention_force_rmse")
DIGITS = 6
TEXT = (
    *("designs", "reason", "e0_open", f"foundation_retention_force_rmse{CELL}"),
    *(f"{column}{CELL}" for column in groups.CELLS),
)
Row = dict[str, Level]  # by column
NULL = "null"  # the level null; an empty cell would be no level


def place(study: Study, root: Path) -> Path:
    """Where the table of a study lies."""
    return root / FOLDER / study.name / "table.csv"


def result(root: Path, key: str) -> Result | Failure | None:
    """What is kept of a run; `None` while it has no result."""
    return result_files.load(root / RESULTS / f"{key}.json")


def row(run: Run, result: Result | Failure | None, metrics: Sequence[str]) -> Row:
    """One row: axes, state and reason, errors, robustness, cost. Units: meV/atom, meV/A, those of the metrics."""
    levels = {axis: NULL if level is None else level for axis, level in run.levels.items()}
    content: Row = {"run": run.key, **levels}
    content |= {f"{VALUE}{axis}": value for axis, value in values(run).items()}
    content |= {"designs": " ".join(run.designs), "state": WAITING, "reason": ""}
    if result is None:
        return content
    if isinstance(result, Failure):
        return content | {"state": FAILED, "reason": result.failed, "cpu_seconds": result.cpu_seconds}
    numbers, foundation_numbers = result.values, result.foundation
    content["state"] = FINISHED
    content["reason"] = "; ".join(f"{metric}: {reason}" for metric, reason in result.unmeasured.items())
    drift = {column: key for column, key in DRIFT.items() if key in numbers}
    for column, key in (MEASURED | drift).items():
        content[column] = numbers.get(key)
        if column in INTERVALS:
            content |= {f"{column}_{side}": numbers.get(f"{key}.{side}") for side in ("low", "high")}
    content |= {f"foundation_{column}": foundation_numbers.get(MEASURED[column]) for column in OF_FOUNDATION}
    model_groups, foundation_groups = result.groups.model, result.groups.foundation
    parts = ("target", "retention", *(["drift"] if drift else []))
    content |= {f"{part}_groups": model_groups.numbers.get(part) for part in parts}
    cells = [column for column in groups.CELLS if column not in DRIFT or column in drift]
    content |= {f"{column}{CELL}": model_groups.cells.get(column, "") for column in cells}
    name = "retention_force_rmse"
    content[f"foundation_{name}{CELL}"] = foundation_groups.cells.get(name, "")
    for metric in metrics:
        key = f"robustness.{metric}"
        content |= {metric: numbers.get(key), f"{metric}_low": numbers.get(f"{key}.low")}
        content |= {f"{metric}_high": numbers.get(f"{key}.high"), f"{metric}_n": result.counts.get(metric)}
        content[f"foundation_{metric}"] = foundation_numbers.get(key)
    content |= {"e0_error": result.e0s.error, "e0_rank": result.e0s.rank, "e0_open": " ".join(result.e0s.open)}
    content |= {"train": result.structures["train"]}
    content |= {"epochs": result.training.epochs, "best_epoch": result.training.best_epoch}
    return content | {"cpu_seconds": result.cpu_seconds}


def make(study: Study, runs: Sequence[Run]) -> pd.DataFrame:
    """The table of a study, runs in their order; numbers to `DIGITS` digits, so that text and frame agree."""
    import pandas as pd

    from retemper.evaluation.robustness.metrics import resolve

    metrics = resolve(list(study.metrics)) if study.metrics else []
    earlier = earlier_rows(place(study, runs[0].root))
    rows = []
    for run in runs:
        run_result = result(run.root, run.key)
        rows.append(row(run, run_result, metrics) | (earlier.get(run.key, {}) if run_result is None else {}))
    return fill_text(round_numbers(pd.DataFrame(rows)))


def earlier_rows(path: Path) -> dict[str, Row]:
    """State and numbers of the finished runs in a table, by key; none where there is no table."""
    if not path.is_file():
        return {}
    rows = finished_rows(read(path)).drop_duplicates("run").set_index("run")
    columns = rows.columns[rows.columns.get_loc("state") :]
    return {str(key): dict(zip(columns, values, strict=True)) for key, *values in rows[columns].itertuples(name=None)}


def fill_text(content: pd.DataFrame) -> pd.DataFrame:
    """No text is empty text, not a missing number."""
    return content.fillna({name: "" for name in TEXT if name in content})


def round_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with its measured numbers to `DIGITS` significant digits; axes are left alone."""
    rows = table.copy()
    for column in rows.columns.difference([*axes_of(table), "run"]):
        if rows[column].dtype.kind == "f":
            rows[column] = rows[column].map(lambda value: float(f"{value:.{DIGITS}g}"))
    return rows


def write(table: pd.DataFrame, path: Path) -> None:
    """As CSV, whole or not at all."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """A table that `write` wrote.

    Raises
    ------
    RetemperError
        A missing file, or one that is no such table.
    """
    import pandas as pd

    if not path.is_file():
        raise RetemperError(f"{path} does not exist.", fix="run the study: retemper study studies/<name>.yaml")
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"run": str, **dict.fromkeys(TEXT, str)})
    missing = [name for name in ("run", *AXES, "state") if name not in table]
    if missing:
        raise RetemperError(f"{path} is no table of a study.", expected=f"columns {', '.join(missing)}")
    return fill_text(table)


def axes_of(table: pd.DataFrame) -> list[str]:
    """The columns that are axes: the usual ones, and the dotted ones."""
    dotted = [name for name in table.columns if "." in name and not name.startswith(VALUE)]
    return [*(axis for axis in AXES if axis in table), *dotted]


def finished_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of runs that came to an end; axes as text, so that levels compare however they were written."""
    rows = table[table["state"] == FINISHED].copy()
    for axis in axes_of(table):
        rows[axis] = rows[axis].map(text)
    return rows


def text(level: Level) -> str:
    """A level as text: 50 and 50.0 are one level."""
    if level is None:
        return NULL
    if isinstance(level, float) and level.is_integer():
        return str(int(level))
    return f"{level:g}" if isinstance(level, float) else str(level)
