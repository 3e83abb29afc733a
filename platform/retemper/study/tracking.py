"""Studies in MLflow: an experiment for each, a run for each row of the table, with a tag for every axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retemper.records.result import Failure, Result
from retemper.study import table
from retemper.study.plan import Run, values
from retemper.study.spec import Study
from retemper.tracking import rows

SECTIONS = ("dataset", "e0s", "replay", "finetune", "evaluate", "robustness")


def experiment_of(study: Study) -> str:
    """Name of a study's experiment."""
    return f"study-{study.name}"


def sync(root: Path, study: Study, runs: Sequence[Run]) -> None:
    """Put the rows with a result that the experiment lacks, or has with another result, into it."""
    results = {run.key: table.result(root, run.key) for run in runs}
    by_key = {run.key: run for run in runs}
    states = {
        key: table.FAILED if isinstance(result, Failure) else table.FINISHED
        for key, result in results.items()
        if result is not None
    }
    if states:
        rows.write(root, experiment_of(study), states, lambda key: _row(root, by_key[key]))


def record(root: Path, study: Study, run: Run) -> None:
    """One row that has just ended."""
    sync(root, study, [run])


def _row(root: Path, run: Run) -> rows.Row:
    """Its settings by section, and its numbers where it has finished."""
    result = table.result(root, run.key)
    assert result is not None
    settings: dict[str, object] = {"system": run.settings.system, "foundation": run.settings.foundation}
    settings |= {name: getattr(run.settings, name).model_dump() for name in SECTIONS}
    settings |= {"strategy": run.strategy.model_dump(exclude={"about", "search"}), "axis": dict(values(run))}
    numbers: dict[str, float] = {"cpu_seconds": result.cpu_seconds}
    if isinstance(result, Result):
        numbers |= result.values | {"e0_error": result.e0s.error}
        numbers |= {f"foundation.{name}": value for name, value in result.foundation.items()}
    tags = {"retemper.kind": "study", "retemper.designs": " ".join(run.designs)}
    tags |= {f"axis.{axis}": table.text(level) for axis, level in run.levels.items()}
    return rows.Row(
        run.words(), run.name, run.seed, settings, numbers, tags, result.failed if isinstance(result, Failure) else None
    )
