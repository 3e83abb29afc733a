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
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from retemper.config.project import Project
from retemper.config.strategies import Point, Strategy, load
from retemper.core.files import digest
from retemper.records.runs import read_history, read_table
from retemper.records.sweep import ABOUT, BEST, MEASURED, BestSetting, Choice, SweepStudy
from retemper.tracking import lineage
from retemper.tracking.content import curve, stored_epochs
from retemper.tracking.lock import locked
from retemper.tracking.pages import page_tags, run_name
from retemper.tracking.runs import log_epoch, never_fatal
from retemper.tracking.store import (
    connect,
    dataset_inputs,
    experiment_id,
    find_run,
    flatten,
    log_datasets,
    log_params,
    process_tags,
    project_tags,
    run_tags,
    runs_with,
    set_tags,
    store_errors,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DATABASE, TABLES = "study.db", (BEST, "trials.csv", "front.csv", "importance.json")
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


def start_sweep(project: Project, about: SweepStudy) -> str | None:
    """The parent run of a sweep: the one of this study when there is one.

    The caller alone works on this study: trials that an interrupted sweep left as RUNNING are closed.
    """
    root = project.root
    with never_fatal(tracking_uri(root)):
        client = connect(root)
        experiment = experiment_id(client, root, project.settings.tracking.experiment)
        run = _parent(client, experiment, project, about)
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        set_tags(client, run, process_tags())
        _close_trials(client, experiment, about.study)
        return str(run.info.run_id)
    return None


def _parent(client: MlflowClient, experiment: str, project: Project, about: SweepStudy) -> Run:
    """The run of a study, found or made."""
    root, settings = project.root, project.settings
    run = find_run(client, experiment, sweep=about.study, kind="sweep")
    if run is None:
        tags = run_tags(lineage.origin(root), about.strategy, about.seed, f"sweep-{about.study}") | project_tags(root)
        tags |= {"retemper.sweep": about.study, "retemper.kind": "sweep"}
        note = f"**{settings.system}**: search of settings for the strategy `{about.strategy}`; trials are nested runs."
        tags |= page_tags(settings.system, f"sweep@{about.strategy}", note)
        run = client.create_run(experiment, run_name=run_name(settings.system, about.strategy, "sweep"), tags=tags)
        flat = flatten({"sweep": settings.sweep.model_dump(), **about.model_dump(include={"space"})})
        log_params(client, run.info.run_id, flat)
        files = lineage.training_data(root, settings, None)
        log_datasets(client, run.info.run_id, dataset_inputs(files))
    return run


def _close_trials(client: MlflowClient, experiment: str, study: str) -> None:
    """Trials of a study that nobody works on any more, and that are RUNNING still, were broken off."""
    for run in runs_with(client, experiment, sweep=study, kind="trial"):
        if run.info.status != "RUNNING":
            continue
        client.set_tag(run.info.run_id, "retemper.reason", "the sweep was interrupted")
        client.set_terminated(run.info.run_id, "KILLED")


@dataclass(frozen=True)
class TrialSettings:
    """What a trial trains."""

    number: int
    strategy: Strategy  # with the values that are tried
    epochs: int
    params: Point  # those values
    training: str  # key of the training


def start_trial(sweep_run: str | None, project: Project, trial: TrialSettings) -> str | None:
    """The nested run of a trial; `None` does nothing further."""
    if sweep_run is None:
        return None
    with never_fatal(tracking_uri(project.root), sweep_run):
        client = connect(project.root)
        parent = client.get_run(sweep_run)
        study = parent.data.tags["retemper.sweep"]
        run = find_run(client, parent.info.experiment_id, sweep=study, kind="trial", trial=trial.number)
        if run is None:
            run = _trial(client, project, parent, trial, None)
        elif run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        set_tags(client, run, process_tags())
        return str(run.info.run_id)
    return None


def _trial(client: MlflowClient, project: Project, parent: Run, trial: TrialSettings, start_time: int | None) -> Run:
    """A new nested run; `start_time` in ms, `None`: now."""
    root, parent_tags, number = project.root, parent.data.tags, str(trial.number)
    study, strategy = parent_tags["retemper.sweep"], parent_tags["retemper.strategy"]
    tags = run_tags(lineage.origin(root), strategy, int(parent_tags["retemper.seed"]), f"trial-{study}-{number}")
    tags |= project_tags(root) | {"retemper.sweep": study, "retemper.kind": "trial", "retemper.trial": number}
    tags |= {"retemper.training": trial.training, "mlflow.parentRunId": str(parent.info.run_id)}
    system = project.settings.system
    note = f"**{system}**: trial {number} of a search of settings for the strategy `{strategy}`."
    tags |= page_tags(system, f"sweep@{strategy}", note)
    name = run_name(system, strategy, "trial", number)
    run = client.create_run(parent.info.experiment_id, start_time, tags, name)
    settings = trial.strategy.model_dump(exclude={"about", "search"})
    log_params(client, run.info.run_id, flatten({**settings, "epochs": trial.epochs, "searched": trial.params}))
    return run


def log_trial_epoch(run_id: str | None, row: dict[str, float]) -> None:
    """One epoch of a trial; see `tracking.log_epoch`."""
    log_epoch(run_id, int(row["epoch"]), {name: value for name, value in row.items() if name != "epoch"})


def finish_trial(
    run_id: str | None, project: Project, history: Path, state: str, values: dict[str, float], reason: str
) -> None:
    """Missing epochs, the measured values, and how the trial ended: FINISHED, KILLED (pruned) or FAILED."""
    if run_id is None:
        return
    with never_fatal(tracking_uri(project.root), run_id):
        _end_trial(connect(project.root), run_id, history, state, values, reason, None)


def _end_trial(
    client: MlflowClient,
    run_id: str,
    history: Path,
    state: str,
    values: dict[str, float],
    reason: str,
    end_time: int | None,
) -> None:
    from mlflow.entities import Metric

    run = client.get_run(run_id)
    rows = read_history(history) if history.is_file() else []
    for batch in curve(rows, stored_epochs(client, run), run.info.start_time):
        client.log_batch(run_id, metrics=batch)
    now = end_time or int(time.time() * 1000)
    if values:
        client.log_batch(run_id, metrics=[Metric(f"sweep.{name}", value, now, 0) for name, value in values.items()])
    set_tags(client, run, {"retemper.state": state} | ({"retemper.reason": reason[:5000]} if reason else {}))
    client.set_terminated(run_id, STATUS[state], end_time)


def interrupt(runs: Sequence[str | None], project: Project) -> None:
    """Mark runs as KILLED; a sweep that goes on takes them up again."""
    for run_id in filter(None, runs):
        with never_fatal(tracking_uri(project.root), run_id):
            connect(project.root).set_terminated(run_id, "KILLED")


def finish_sweep(project: Project, strategy: str) -> None:
    """Close the parent run: what was chosen, and the tables of ``runs/sweep/<strategy>``."""
    about = SweepStudy.read(project.sweep(strategy) / ABOUT)
    with never_fatal(tracking_uri(project.root)):
        client = connect(project.root)
        experiment = experiment_id(client, project.root, project.settings.tracking.experiment)
        parent = _parent(client, experiment, project, about)
        _close_trials(client, experiment, about.study)
        _close(client, project.sweep(strategy), parent)


def _close(client: MlflowClient, folder: Path, parent: Run) -> None:
    """What was chosen by the sweep in `folder`, once for each content."""
    run_id = str(parent.info.run_id)
    if parent.data.tags.get("retemper.synced") != _content(folder):
        from mlflow.entities import Metric

        best, now = BestSetting.read(folder / BEST), int(time.time() * 1000)
        objectives = best.objectives or {}
        client.log_batch(run_id, [Metric(f"best.{name}", value, now, 0) for name, value in objectives.items()])
        for name in TABLES:
            client.log_artifact(run_id, str(folder / name))
        trial = {"retemper.best_trial": str(best.chosen.trial)} if isinstance(best.chosen, Choice) else {}
        set_tags(client, parent, {**trial, "retemper.synced": _content(folder)})
    if parent.info.status != "FINISHED" or "retemper.synced" not in parent.data.tags:
        end_time = max((end for _, end in _times(folder).values()), default=None)
        client.set_terminated(run_id, "FINISHED", end_time)


def _content(folder: Path) -> str:
    """Digest of what a sweep left."""
    return digest([lineage.file_md5(folder / name) for name in (ABOUT, *TABLES)])


def _times(folder: Path) -> dict[int, tuple[int, int]]:
    """When each trial of a sweep began and ended (ms), by its number, as the study says."""
    if not (folder / DATABASE).is_file():
        return {}
    with contextlib.closing(sqlite3.connect(f"file:{quote(str(folder / DATABASE))}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT number, datetime_start, datetime_complete FROM trials").fetchall()
    return {number: (_ms(start), _ms(end)) for number, start, end in rows if start and end}


def _ms(time_of_day: str) -> int:
    return round(1000 * datetime.fromisoformat(time_of_day).timestamp())


def sync(project: Project) -> int:
    """Bring MLflow up to date with the finished sweeps under ``runs/sweep``; returns how many trials they have.

    Runs that are there stay as they are; those that are not are made from ``trials.csv`` and the histories. A
    sweep whose files have not changed since costs one request.

    Raises
    ------
    RetemperError
        The tracking store cannot be reached.
    """
    count, root, settings = 0, project.root, project.settings
    names = [name for name in settings.strategies if (project.sweep(name) / ABOUT).is_file()]
    if not names:
        return 0
    with store_errors(root):
        client = connect(root)
        experiment = experiment_id(client, root, settings.tracking.experiment)
        for folder in map(project.sweep, names):
            about, rows = SweepStudy.read(folder / ABOUT), read_table(folder / "trials.csv")
            count += len(rows)
            run = find_run(client, experiment, sweep=about.study, kind="sweep")
            if run is None or run.info.status != "FINISHED" or run.data.tags.get("retemper.synced") != _content(folder):
                with locked(client, root, settings.system):
                    parent = _parent(client, experiment, project, about)
                    _sync_trials(client, project, parent, about, rows)
                    _close_trials(client, experiment, about.study)
                    _close(client, folder, client.get_run(parent.info.run_id))
    return count


def _sync_trials(
    client: MlflowClient, project: Project, parent: Run, about: SweepStudy, rows: list[dict[str, str]]
) -> None:
    """Make or complete the nested runs of a sweep that is over."""
    folder = project.sweep(about.strategy)
    times = _times(folder)
    trial_runs = runs_with(client, parent.info.experiment_id, sweep=about.study, kind="trial")
    runs = {run.data.tags["retemper.trial"]: run for run in reversed(trial_runs)}
    for row in rows:
        run, number = runs.get(row["trial"]), int(row["trial"])
        if run is not None and "retemper.state" in run.data.tags:
            continue
        start_time, end_time = times.get(number, (None, None))
        if run is None:
            texts = {path: row[path] for path in about.space if row[path]}
            params = {path: None if text == "none" else json.loads(text) for path, text in texts.items()}
            strategy = load(about.strategy, project.root, {**project.settings.finetune.overrides, **params})
            trial = TrialSettings(number, strategy, about.epochs, params, row["training"])
            run = _trial(client, project, parent, trial, start_time)
        values = {name: float(row[name]) for name in MEASURED if row[name]}
        history = folder / f"trials/{number}.csv"
        _end_trial(client, str(run.info.run_id), history, row["state"], values, row["reason"], end_time)
