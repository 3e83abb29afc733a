"""Studies in MLflow: an experiment for each, a run for each row of the table, with a tag for every axis.

As everywhere the files are the truth (``studies/results``), the driver alone writes, and a store that cannot be
reached costs a warning.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper.study import table
from retemper.study.plan import Run, values
from retemper.study.spec import Study
from retemper.tracking import lineage
from retemper.tracking.lock import locked
from retemper.tracking.runs import never_fatal
from retemper.tracking.store import (
    connect,
    experiment_id,
    flatten,
    log_params,
    own_tags,
    run_tags,
    runs_where,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECTIONS = ("dataset", "e0s", "replay", "finetune", "evaluate", "robustness")


def experiment_of(study: Study) -> str:
    """Name of a study's experiment."""
    return f"study-{study.name}"


def sync(root: Path, study: Study, runs: Sequence[Run]) -> None:
    """Put the rows with a result that the experiment lacks, or has with another result, into it."""
    ended = [one for one in runs if table.result(root, one.key) is not None]
    if not ended:
        return
    with never_fatal(tracking_uri(root)):
        client = connect(root)
        experiment = experiment_id(client, root, experiment_of(study))
        there = _states(client, experiment)
        for one in ended:
            if _lacks(root, one, there):
                with locked(client, root, experiment_of(study)):
                    _write(client, experiment, root, one)


def record(root: Path, study: Study, run: Run) -> None:
    """One row that has just ended."""
    with never_fatal(tracking_uri(root)):
        client = connect(root)
        experiment = experiment_id(client, root, experiment_of(study))
        with locked(client, root, experiment_of(study)):
            _write(client, experiment, root, run)


def _states(client: MlflowClient, experiment: str, key: str | None = None) -> dict[str, tuple[str, str]]:
    """Run and state by key, of one key where it is given; a run without a state was broken off in between."""
    wanted = f"tags.`retemper.key` = '{key}'" if key else ""
    found: dict[str, tuple[str, str]] = {}
    for run in runs_where(client, experiment, wanted):
        tags = run.data.tags
        if "retemper.key" in tags and not found.get(tags["retemper.key"], ("", ""))[1]:
            found[tags["retemper.key"]] = (str(run.info.run_id), tags.get("retemper.state", ""))
    return found


def _state(root: Path, run: Run) -> str:
    found = table.result(root, run.key)
    assert found is not None
    return table.FAILED if "failed" in found else table.FINISHED


def _lacks(root: Path, run: Run, there: dict[str, tuple[str, str]]) -> bool:
    return there.get(run.key, ("", ""))[1] != _state(root, run)


def _write(client: MlflowClient, experiment: str, root: Path, run: Run) -> None:
    """The MLflow run of a row: tags, settings and numbers, its state last. Call it within the study's lock."""
    from mlflow.entities import Metric, RunTag

    there = _states(client, experiment, run.key)
    if not _lacks(root, run, there):
        return
    found, state = table.result(root, run.key), _state(root, run)
    assert found is not None
    run_id = there.get(run.key, ("", ""))[0]
    if not run_id:
        tags = run_tags(lineage.origin(root), run.name, run.seed, run.key) | own_tags(root)
        tags |= {"retemper.kind": "study", "retemper.designs": " ".join(run.designs)}
        tags |= {f"axis.{axis}": table.text(level) for axis, level in run.levels.items()}
        run_id = str(client.create_run(experiment, run_name=run.words()[:250], tags=tags).info.run_id)
    settings = {name: getattr(run.settings, name).model_dump() for name in SECTIONS}
    strategy = run.strategy.model_dump(exclude={"about", "search"})
    flat = flatten({"system": run.settings.system, "foundation": run.settings.foundation, **settings})
    flat |= flatten({"strategy": strategy, "axis": dict(values(run))})
    params = client.get_run(run_id).data.params
    log_params(client, run_id, {name: text for name, text in flat.items() if name not in params})
    now = int(time.time() * 1000)
    numbers: dict[str, Any] = {"cpu_seconds": found["cpu_seconds"]}
    if state == table.FINISHED:
        numbers |= found["values"] | {"e0_error": found["e0s"]["error"]}
        numbers |= {f"foundation.{name}": value for name, value in found["foundation"].items()}
    metrics = [Metric(name, float(value), now, 0) for name, value in numbers.items()]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])
    said = {"retemper.reason": found["failed"][:5000]} if state == table.FAILED else {}
    client.log_batch(run_id, tags=[RunTag(name, text) for name, text in {**said, "retemper.state": state}.items()])
    client.set_terminated(run_id, "FAILED" if state == table.FAILED else "FINISHED")
