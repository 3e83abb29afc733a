"""Sweeps in MLflow: a parent run for each sweep, a nested run with curves for each trial.

As for trainings the files are the truth (``runs/sweep/<strategy>``), and a store that cannot be reached
costs a warning. A trial's run is not that of the model that is registered: `finetune` has its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retemper import lineage
from retemper.files import read_json
from retemper.mlflow_store import (
    connect,
    dataset_inputs,
    experiment_id,
    find_run,
    flatten,
    run_tags,
    store_errors,
    tracking_uri,
)
from retemper.results import read_history, read_table
from retemper.settings import Settings, load_settings
from retemper.strategies import load
from retemper.strict_yaml import read_yaml
from retemper.sweep.output import MEASURED
from retemper.tracking import log_epoch, never_fatal

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


def start_sweep(settings: Settings, root: Path, strategy: str, about: dict[str, Any]) -> str | None:
    """The parent run of a sweep: the one of this study when there is one."""
    with never_fatal(tracking_uri(root)):
        client = connect(root)
        experiment = experiment_id(client, root, settings.tracking.experiment)
        run = find_run(client, experiment, sweep=about["study"], kind="sweep")
        if run is None:
            tags = run_tags(lineage.origin(root), strategy, about["seed"], f"sweep-{about['study']}")
            tags |= {"retemper.sweep": about["study"], "retemper.kind": "sweep"}
            run = client.create_run(experiment, run_name=f"{strategy}/sweep", tags=tags)
            for name, text in flatten({"sweep": settings.sweep.model_dump(), "space": about["space"]}).items():
                client.log_param(run.info.run_id, name, text)
            files = lineage.training_data(root, load_settings(root / "params.yaml"), None)
            client.log_inputs(run.info.run_id, datasets=dataset_inputs(files))
        else:
            client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)
    return None


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
            strategy, seed = parent.data.tags["retemper.strategy"], int(parent.data.tags["retemper.seed"])
            tags = run_tags(lineage.origin(root), strategy, seed, f"trial-{study}-{number}")
            tags |= {"retemper.sweep": study, "retemper.kind": "trial", "retemper.trial": str(number)}
            tags |= {"retemper.training": training, "mlflow.parentRunId": sweep_run}
            run = client.create_run(parent.info.experiment_id, run_name=f"{strategy}/trial-{number}", tags=tags)
            from mlflow.entities import Param

            shown = {name: value for name, value in settings.items() if name not in ("about", "search")}
            flat = flatten({**shown, "searched": params})
            client.log_batch(run.info.run_id, params=[Param(name, value) for name, value in flat.items()])
        return str(run.info.run_id)
    return None


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
        client = connect(root)
        have = {metric.step for metric in client.get_metric_history(run_id, "train_loss")}
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        rows = read_history(history) if history.is_file() else []
        metrics = [
            Metric(name, value, now, int(row["epoch"]))
            for row in rows
            if int(row["epoch"]) not in have
            for name, value in row.items()
            if name != "epoch"
        ]
        metrics += [Metric(f"sweep.{name}", value, now, 0) for name, value in values.items()]
        for start in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[start : start + 1000])
        client.set_tag(run_id, "retemper.state", state)
        if reason:
            client.set_tag(run_id, "retemper.reason", reason[:5000])
        client.set_terminated(run_id, STATUS[state])


def interrupt(runs: Sequence[str | None], root: Path) -> None:
    """Mark runs as KILLED; a sweep that goes on takes them up again."""
    for run_id in filter(None, runs):
        with never_fatal(tracking_uri(root), run_id):
            connect(root).set_terminated(run_id, "KILLED")


def finish_sweep(settings: Settings, root: Path, strategy: str) -> None:
    """Close the parent run: what was chosen, and the tables of ``runs/sweep/<strategy>``."""
    folder = root / "runs/sweep" / strategy
    about, best = read_json(folder / "about.json"), read_yaml(folder / "best.yaml")
    run_id = start_sweep(settings, root, strategy, about)
    if run_id is None:
        return
    with never_fatal(tracking_uri(root), run_id):
        client = connect(root)
        for name, value in best["objectives"].items():
            client.log_metric(run_id, f"best.{name}", value)
        client.set_tag(run_id, "retemper.best_trial", str(best["chosen"]["trial"]))
        for name in ("best.yaml", "trials.csv", "front.csv", "importance.json"):
            client.log_artifact(run_id, str(folder / name))
        client.set_terminated(run_id, "FINISHED")


def sync(root: Path, settings: Settings) -> int:
    """Bring MLflow up to date with the finished sweeps under ``runs/sweep``; returns how many trials they have.

    Runs that are there stay as they are; those that are not are made from ``trials.csv`` and the histories.

    Raises
    ------
    RetemperError
        The tracking store cannot be reached.
    """
    count = 0
    with store_errors(root):
        for strategy in settings.strategies:
            folder = root / "runs/sweep" / strategy
            if not (folder / "about.json").is_file():
                continue
            about = read_json(folder / "about.json")
            sweep_run = start_sweep(settings, root, strategy, about)
            for row in read_table(folder / "trials.csv"):
                given = {path: row[path] for path in about["space"] if row[path]}
                params = {path: None if text == "none" else json.loads(text) for path, text in given.items()}
                full = load(strategy, root, {**settings.finetune.overrides, **params}).model_dump()
                number, history = int(row["trial"]), folder / f"trials/{row['trial']}.csv"
                shown = {**full, "epochs": about["epochs"]}
                run_id = start_trial(sweep_run, root, number, shown, params, row["training"])
                if run_id is not None and "retemper.state" not in connect(root).get_run(run_id).data.tags:
                    values = {name: float(row[name]) for name in MEASURED if row[name]}
                    finish_trial(run_id, root, history, row["state"], values, row["reason"])
                count += 1
            finish_sweep(settings, root, strategy)
    return count
