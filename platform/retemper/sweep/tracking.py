"""Sweeps in MLflow: a parent run for each sweep, a nested run with curves for each trial.

As for trainings the files are the truth (``runs/sweep/<strategy>``), and a store that cannot be reached
costs a warning. A trial's run is not that of the model that is registered: `finetune` has its own.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from retemper.config.settings import Settings, load_settings
from retemper.config.strategies import load
from retemper.config.strict_yaml import read_yaml
from retemper.core.files import digest, read_json
from retemper.records.runs import read_history, read_table
from retemper.sweep.output import MEASURED
from retemper.tracking import lineage
from retemper.tracking.content import curve, epochs_there
from retemper.tracking.lock import locked
from retemper.tracking.runs import log_epoch, never_fatal
from retemper.tracking.store import (
    connect,
    dataset_inputs,
    experiment_id,
    find_run,
    flatten,
    log_datasets,
    log_params,
    own_tags,
    process_tags,
    run_tags,
    runs_with,
    set_tags,
    store_errors,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DATABASE, TABLES = "study.db", ("best.yaml", "trials.csv", "front.csv", "importance.json")
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


def start_sweep(settings: Settings, root: Path, strategy: str, about: dict[str, Any]) -> str | None:
    """The parent run of a sweep: the one of this study when there is one.

    The caller alone works on this study: trials that an interrupted sweep left as RUNNING are closed.
    """
    with never_fatal(tracking_uri(root)):
        client = connect(root)
        experiment = experiment_id(client, root, settings.tracking.experiment)
        run = _parent(client, experiment, settings, root, strategy, about)
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        set_tags(client, run, process_tags())
        _close_trials(client, experiment, about["study"])
        return str(run.info.run_id)
    return None


def _parent(
    client: MlflowClient, experiment: str, settings: Settings, root: Path, strategy: str, about: dict[str, Any]
) -> Run:
    """The run of a study, found or made."""
    run = find_run(client, experiment, sweep=about["study"], kind="sweep")
    if run is None:
        tags = run_tags(lineage.origin(root), strategy, about["seed"], f"sweep-{about['study']}") | own_tags(root)
        tags |= {"retemper.sweep": about["study"], "retemper.kind": "sweep"}
        run = client.create_run(experiment, run_name=f"{strategy}/sweep", tags=tags)
        flat = flatten({"sweep": settings.sweep.model_dump(), "space": about["space"]})
        log_params(client, run.info.run_id, flat)
        files = lineage.training_data(root, load_settings(root / "params.yaml"), None)
        log_datasets(client, run.info.run_id, dataset_inputs(files))
    return run


def _close_trials(client: MlflowClient, experiment: str, study: str) -> None:
    """Trials of a study that nobody works on any more, and that are RUNNING still, were broken off."""
    for run in runs_with(client, experiment, sweep=study, kind="trial"):
        if run.info.status != "RUNNING":
            continue
        client.set_tag(run.info.run_id, "retemper.reason", "the sweep was interrupted")
        client.set_terminated(run.info.run_id, "KILLED")


def start_trial(
    sweep_run: str | None, root: Path, number: int, settings: dict[str, Any], params: dict[str, Any], training: str
) -> str | None:
    """The nested run of trial `number`; `None` does nothing further."""
    if sweep_run is None:
        return None
    with never_fatal(tracking_uri(root), sweep_run):
        client = connect(root)
        parent = client.get_run(sweep_run)
        study = parent.data.tags["retemper.sweep"]
        run = find_run(client, parent.info.experiment_id, sweep=study, kind="trial", trial=number)
        if run is None:
            run = _trial(client, root, parent, number, settings, params, training, None)
        elif run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        set_tags(client, run, process_tags())
        return str(run.info.run_id)
    return None


def _trial(
    client: MlflowClient,
    root: Path,
    parent: Run,
    number: int,
    settings: dict[str, Any],
    params: dict[str, Any],
    training: str,
    started: int | None,
) -> Run:
    """A new nested run; `started` in ms, `None`: now."""
    study, strategy = parent.data.tags["retemper.sweep"], parent.data.tags["retemper.strategy"]
    tags = run_tags(lineage.origin(root), strategy, int(parent.data.tags["retemper.seed"]), f"trial-{study}-{number}")
    tags |= own_tags(root) | {"retemper.sweep": study, "retemper.kind": "trial", "retemper.trial": str(number)}
    tags |= {"retemper.training": training, "mlflow.parentRunId": str(parent.info.run_id)}
    run = client.create_run(parent.info.experiment_id, started, tags, f"{strategy}/trial-{number}")
    shown = {name: value for name, value in settings.items() if name not in ("about", "search")}
    log_params(client, run.info.run_id, flatten({**shown, "searched": params}))
    return run


def log_trial_epoch(run_id: str | None, row: dict[str, float]) -> None:
    """One epoch of a trial; see `tracking.log_epoch`."""
    log_epoch(run_id, int(row["epoch"]), {name: value for name, value in row.items() if name != "epoch"})


def finish_trial(
    run_id: str | None, root: Path, history: Path, state: str, values: dict[str, float], reason: str
) -> None:
    """Missing epochs, the measured values, and how the trial ended: FINISHED, KILLED (pruned) or FAILED."""
    if run_id is None:
        return
    with never_fatal(tracking_uri(root), run_id):
        _end_trial(connect(root), run_id, history, state, values, reason, None)


def _end_trial(
    client: MlflowClient,
    run_id: str,
    history: Path,
    state: str,
    values: dict[str, float],
    reason: str,
    ended: int | None,
) -> None:
    from mlflow.entities import Metric

    run = client.get_run(run_id)
    rows = read_history(history) if history.is_file() else []
    for batch in curve(rows, epochs_there(client, run), run.info.start_time):
        client.log_batch(run_id, metrics=batch)
    now = ended or int(time.time() * 1000)
    if values:
        client.log_batch(run_id, metrics=[Metric(f"sweep.{name}", value, now, 0) for name, value in values.items()])
    set_tags(client, run, {"retemper.state": state} | ({"retemper.reason": reason[:5000]} if reason else {}))
    client.set_terminated(run_id, STATUS[state], ended)


def interrupt(runs: Sequence[str | None], root: Path) -> None:
    """Mark runs as KILLED; a sweep that goes on takes them up again."""
    for run_id in filter(None, runs):
        with never_fatal(tracking_uri(root), run_id):
            connect(root).set_terminated(run_id, "KILLED")


def finish_sweep(settings: Settings, root: Path, strategy: str) -> None:
    """Close the parent run: what was chosen, and the tables of ``runs/sweep/<strategy>``."""
    about = read_json(root / "runs/sweep" / strategy / "about.json")
    with never_fatal(tracking_uri(root)):
        client = connect(root)
        experiment = experiment_id(client, root, settings.tracking.experiment)
        parent = _parent(client, experiment, settings, root, strategy, about)
        _close_trials(client, experiment, about["study"])
        _close(client, root, strategy, parent)


def _close(client: MlflowClient, root: Path, strategy: str, parent: Run) -> None:
    """What was chosen, once for each content."""
    folder, run_id = root / "runs/sweep" / strategy, str(parent.info.run_id)
    if parent.data.tags.get("retemper.synced") != _content(folder):
        from mlflow.entities import Metric

        best, now = read_yaml(folder / "best.yaml"), int(time.time() * 1000)
        client.log_batch(run_id, [Metric(f"best.{name}", value, now, 0) for name, value in best["objectives"].items()])
        for name in TABLES:
            client.log_artifact(run_id, str(folder / name))
        set_tags(
            client, parent, {"retemper.best_trial": str(best["chosen"]["trial"]), "retemper.synced": _content(folder)}
        )
    if parent.info.status != "FINISHED" or "retemper.synced" not in parent.data.tags:
        ended = max((end for _, end in _times(folder).values()), default=None)
        client.set_terminated(run_id, "FINISHED", ended)


def _content(folder: Path) -> str:
    """Digest of what a sweep left."""
    return digest([lineage.file_md5(folder / name) for name in ("about.json", *TABLES)])


def _times(folder: Path) -> dict[int, tuple[int, int]]:
    """When each trial of a sweep began and ended (ms), by its number, as the study says."""
    if not (folder / DATABASE).is_file():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(folder / DATABASE))}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT number, datetime_start, datetime_complete FROM trials").fetchall()
    return {number: (_ms(start), _ms(end)) for number, start, end in rows if start and end}


def _ms(time_of_day: str) -> int:
    return round(1000 * datetime.fromisoformat(time_of_day).timestamp())


def sync(root: Path, settings: Settings) -> int:
    """Bring MLflow up to date with the finished sweeps under ``runs/sweep``; returns how many trials they have.

    Runs that are there stay as they are; those that are not are made from ``trials.csv`` and the histories. A
    sweep whose files have not changed since costs one request.

    Raises
    ------
    RetemperError
        The tracking store cannot be reached.
    """
    count = 0
    there = [name for name in settings.strategies if (root / "runs/sweep" / name / "about.json").is_file()]
    if not there:
        return 0
    with store_errors(root):
        client = connect(root)
        experiment = experiment_id(client, root, settings.tracking.experiment)
        for strategy in there:
            folder = root / "runs/sweep" / strategy
            about, rows = read_json(folder / "about.json"), read_table(folder / "trials.csv")
            count += len(rows)
            run = find_run(client, experiment, sweep=about["study"], kind="sweep")
            if run is None or run.info.status != "FINISHED" or run.data.tags.get("retemper.synced") != _content(folder):
                with locked(client, root, settings.system):
                    parent = _parent(client, experiment, settings, root, strategy, about)
                    _sync_trials(client, root, settings, parent, about, rows)
                    _close_trials(client, experiment, about["study"])
                    _close(client, root, strategy, client.get_run(parent.info.run_id))
    return count


def _sync_trials(
    client: MlflowClient,
    root: Path,
    settings: Settings,
    parent: Run,
    about: dict[str, Any],
    rows: list[dict[str, str]],
) -> None:
    """Make or complete the nested runs of a sweep that is over."""
    strategy = about["strategy"]
    folder = root / "runs/sweep" / strategy
    times = _times(folder)
    of_sweep = runs_with(client, parent.info.experiment_id, sweep=about["study"], kind="trial")
    there = {run.data.tags["retemper.trial"]: run for run in reversed(of_sweep)}
    for row in rows:
        run, number = there.get(row["trial"]), int(row["trial"])
        if run is not None and "retemper.state" in run.data.tags:
            continue
        started, ended = times.get(number, (None, None))
        if run is None:
            given = {path: row[path] for path in about["space"] if row[path]}
            params = {path: None if text == "none" else json.loads(text) for path, text in given.items()}
            full = load(strategy, root, {**settings.finetune.overrides, **params}).model_dump()
            shown = {**full, "epochs": about["epochs"]}
            run = _trial(client, root, parent, number, shown, params, row["training"], started)
        values = {name: float(row[name]) for name in MEASURED if row[name]}
        history = folder / f"trials/{number}.csv"
        _end_trial(client, str(run.info.run_id), history, row["state"], values, row["reason"], ended)
