"""Rows of a table in MLflow: an experiment of runs that are known by a key, each written once a state.

As everywhere the files are the truth, and a store that cannot be reached costs a warning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.tracking import lineage
from retemper.tracking.lock import locked
from retemper.tracking.runs import never_fatal
from retemper.tracking.store import (
    connect,
    experiment_id,
    flatten,
    log_params,
    project_tags,
    run_tags,
    runs_where,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 1000  # metrics that MLflow takes at once


@dataclass(frozen=True)
class Row:
    """What a run shows."""

    name: str  # of the run
    strategy: str
    seed: int
    settings: Mapping[str, object]  # shown flat as parameters
    numbers: Mapping[str, float]
    tags: Mapping[str, str]
    failed: str | None = None  # why


def write(root: Path, experiment: str, states: Mapping[str, str], row: Callable[[str], Row]) -> None:
    """Put the rows that the experiment lacks, or has in another state, into it.

    Parameters
    ----------
    states
        By key.
    row
        Gives the row of a key; asked for those alone that are written.
    """
    with never_fatal(tracking_uri(root)):
        client = connect(root)
        number = experiment_id(client, root, experiment)
        stored = _states(client, number, next(iter(states)) if len(states) == 1 else None)
        for key, state in states.items():
            if stored.get(key, ("", ""))[1] != state:
                with locked(client, root, experiment):
                    _write(client, number, root, key, state, row(key))


def _states(client: MlflowClient, experiment: str, key: str | None) -> dict[str, tuple[str, str]]:
    """Run and state by key, of one key where it is given; a run without a state was broken off in between."""
    states: dict[str, tuple[str, str]] = {}
    for run in runs_where(client, experiment, f"tags.`retemper.key` = '{key}'" if key else ""):
        tags = run.data.tags
        if "retemper.key" in tags and not states.get(tags["retemper.key"], ("", ""))[1]:
            states[tags["retemper.key"]] = (str(run.info.run_id), tags.get("retemper.state", ""))
    return states


def _write(client: MlflowClient, experiment: str, root: Path, key: str, state: str, row: Row) -> None:
    """The run of a row: tags, settings and numbers, its state last. Call it within the experiment's lock."""
    from mlflow.entities import Metric, RunTag

    run_id, stored = _states(client, experiment, key).get(key, ("", ""))
    if stored == state:  # another process wrote it meanwhile
        return
    if not run_id:
        tags = run_tags(lineage.origin(root), row.strategy, row.seed, key) | project_tags(root) | dict(row.tags)
        run_id = str(client.create_run(experiment, run_name=row.name[:250], tags=tags).info.run_id)
    params = client.get_run(run_id).data.params
    log_params(client, run_id, {name: text for name, text in flatten(row.settings).items() if name not in params})
    now = int(time.time() * 1000)
    metrics = [Metric(name, float(value), now, 0) for name, value in row.numbers.items()]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    reason = [] if row.failed is None else [RunTag("retemper.reason", row.failed[:5000])]
    client.log_batch(run_id, tags=[*reason, RunTag("retemper.state", state)])
    client.set_terminated(run_id, "FINISHED" if row.failed is None else "FAILED")
