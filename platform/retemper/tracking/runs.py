"""Training runs and evaluations in MLflow: an index over the files under ``runs/``.

The files are the truth. While a seed trains, its epochs are sent to the tracking store as
they come; whatever does not arrive is filled in from ``history.csv`` when the seed ends, or
by `sync`, which rebuilds every run that is missing. A tracking store that cannot be reached
costs a warning, never a training run.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core.files import digest, project_root
from retemper.records.runs import FOUNDATION, Results, Training, read_results, read_training
from retemper.tracking import lineage
from retemper.tracking.content import (
    MODEL,
    describe,
    index_training,
    log_evaluation,
    same_history,
    state,
    stored_epochs,
)
from retemper.tracking.lock import locked
from retemper.tracking.pages import SYSTEM, page_tags, run_name, training_tags
from retemper.tracking.store import (
    CHECKOUT,
    checkout,
    close_dead,
    connect,
    dataset_inputs,
    experiment_id,
    impatient,
    is_embedded,
    is_of_project,
    log_datasets,
    process_tags,
    project_tags,
    quiet,
    run_tags,
    runs_where,
    runs_with,
    set_tags,
    store_errors,
    tracking_uri,
)
from retemper.tracking.store_errors import StoreError, explain

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


# ------------------------------------------------------------------ live, from the trainer


@dataclass
class _Live:
    """A run that this process is logging to."""

    client: MlflowClient
    root: Path
    steps: set[int] = field(default_factory=set)  # epochs that the store has


_live: dict[str, _Live] = {}
_given_up: set[str] = set()


def start_training(
    settings: Mapping[str, object], *, experiment: str, system: str, strategy: str, seed: int, root: Path, key: str
) -> str | None:
    """Open a run for one seed, or the one that a killed process left in this folder.

    Runs that came to their end stay as they are: training again is another run, which follows them when it ends.

    Parameters
    ----------
    settings : mapping
        Configuration; flattened into the run's parameters.
    experiment : str
        MLflow experiment.
    key : str
        Hash of everything that decides the result. The same key, strategy and seed is the same run.

    Returns
    -------
    str or None
        The run; `None`, after a warning, when the tracking store cannot be reached. The other
        functions take `None` and do nothing.
    """
    root = Path(root).resolve()
    with never_fatal(tracking_uri(root)):
        client = connect(root)
        experiment_number = experiment_id(client, root, experiment)
        run = _attempt(client, experiment_number, root, {"key": key, "strategy": strategy, "seed": seed})
        tags = project_tags(root) | process_tags()
        steps: set[int] = set()
        if run is None:
            tags |= run_tags(lineage.origin(root), strategy, seed, key)
            tags |= training_tags(system, str(settings.get("foundation", "a foundation")), strategy, seed)
            run = client.create_run(experiment_number, run_name=run_name(system, strategy, "seed", seed), tags=tags)
        else:
            steps = set(stored_epochs(client, run))
            client.update_run(run.info.run_id, status="RUNNING")
            set_tags(client, run, tags)
        run_id = str(run.info.run_id)
        describe(client, run, root, settings)
        _live[run_id] = _Live(client, root, steps)
        _given_up.discard(run_id)
        return run_id
    return None


def _attempt(client: MlflowClient, experiment: str, root: Path, identity: Mapping[str, str | int]) -> Run | None:
    """The newest run of this project's folder that did not come to its end; finished ones are left as they are."""
    for run in runs_with(client, experiment, **identity):
        tags = run.data.tags
        finished = run.info.status == "FINISHED" or MODEL in tags or "retemper.superseded" in tags
        if not finished and (is_embedded(root) or tags.get(CHECKOUT, checkout(root)) == checkout(root)):
            return run
    return None


def log_epoch(run_id: str | None, epoch: int, values: dict[str, float]) -> None:
    """Send one epoch's numbers in one request. Epochs that the store has already are left alone.

    After a failure the run's further epochs are not sent: `finish_training` fills them in.
    """
    if run_id is None or run_id in _given_up:
        return
    live = _live.get(run_id)
    if live is None:
        live = _live[run_id] = _Live(connect(), project_root())
    if epoch in live.steps:
        return
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(name, float(value), now, epoch) for name, value in values.items() if name != "epoch"]
    with never_fatal(tracking_uri(live.root), run_id):
        live.client.log_batch(run_id, metrics=metrics)
        live.steps.add(epoch)


def finish_training(run_id: str | None, folder: str | Path, status: str = "FINISHED") -> None:
    """Close a run: missing epochs, files and learning curve from `folder`, and its status.

    Parameters
    ----------
    folder : path
        Folder of the seed with ``history.csv``, ``effective.json``, ``mace.yaml``, ``model.safetensors``;
        after a failure those that there are.
    status : str
        ``FINISHED``, ``FAILED`` or ``KILLED``.
    """
    if run_id is None:
        return
    live = _live.pop(run_id, None)
    root = live.root if live else project_root()
    with never_fatal(tracking_uri(root), run_id):
        client = connect(root)  # anew: the project may have been moved meanwhile
        run = client.get_run(run_id)
        training = read_training(Path(folder), run.data.tags["retemper.strategy"], int(run.data.tags["retemper.seed"]))
        if not same_history(client, run, training):
            _supersede(client, run, "trained again")
            return
        index_training(client, run_id, training, status)
        if status == "FINISHED":
            _follow(client, client.get_run(run_id))


def _follow(client: MlflowClient, run: Run) -> None:
    """Earlier runs of the same key and folder are superseded by `run`; when one left the same weights, `run` by it."""
    tags = run.data.tags
    identity = {name: tags[f"retemper.{name}"] for name in ("key", "strategy", "seed")}
    for sibling in runs_with(client, run.info.experiment_id, **identity):
        later = sibling.info.start_time > run.info.start_time
        if sibling.info.run_id == run.info.run_id or later or "retemper.superseded" in sibling.data.tags:
            continue
        if sibling.data.tags.get(CHECKOUT) != tags.get(CHECKOUT):
            continue
        if sibling.data.tags.get(MODEL) == tags.get(MODEL):
            _supersede(client, run, str(sibling.info.run_id))
            return
        _supersede(client, sibling, str(run.info.run_id))


def _supersede(client: MlflowClient, run: Run, by: str) -> None:
    """Put a run aside: trained again with other numbers, or a repetition. One that is over keeps its status."""
    client.set_tag(run.info.run_id, "retemper.superseded", by)
    if run.info.status == "RUNNING":
        client.set_terminated(run.info.run_id, "KILLED")


@contextlib.contextmanager
def never_fatal(uri: str, run_id: str | None = None) -> Iterator[None]:
    """Turn a store that fails into one warning, without waiting long for it."""
    quiet()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with impatient(retries=1, seconds=7):
            yield
    except (StoreError, MlflowException, SQLAlchemyError, OSError) as error:
        if run_id is not None:
            _given_up.add(run_id)
        message = error if isinstance(error, StoreError) else explain(error, uri)
        warnings.warn(
            f"MLflow does not take this run. Training goes on; history.csv holds the numbers, and `retemper sync` "
            f"puts them into MLflow later.\n{message}",
            RuntimeWarning,
            stacklevel=3,
        )


# ------------------------------------------------------------------ from files


def sync(root: str | Path, settings: Settings, strategies: list[str] | None = None) -> dict[str, dict[int, str]]:
    """Bring MLflow up to date with the finished seeds and evaluations under ``runs/``.

    Runs that are there are completed, those that are not are made from the files, and those whose process died
    are closed. Doing it again changes nothing, and asks little.

    Returns
    -------
    dict
        Run by strategy and seed; the foundation's evaluation under ``foundation``, seed 0.

    Raises
    ------
    RetemperError
        The tracking store cannot be reached.
    """
    root = Path(root).resolve()
    results = read_results(Project(root, settings), strategies=strategies)
    with store_errors(root):
        by_name = runs(connect(root), results)
    return {name: {seed: str(run.info.run_id) for seed, run in seeds.items()} for name, seeds in by_name.items()}


def runs(client: MlflowClient, results: Results) -> dict[str, dict[int, Run]]:
    """`sync`, with the runs themselves. One search tells which are up to date."""
    root, settings = results.root, results.settings
    experiment = experiment_id(client, root, settings.tracking.experiment)
    close_dead(client, experiment)
    synced: dict[str, Run] = {}
    for run in runs_where(client, experiment, "tags.`retemper.synced` != ''"):
        current = run.info.status == "FINISHED" and "retemper.superseded" not in run.data.tags
        if current and is_of_project(run, root):
            synced.setdefault(run.data.tags["retemper.synced"], run)
    by_name: dict[str, dict[int, Run]] = {}
    models = [(name, seed) for name in results.summaries for seed in results.trainings[name]]
    models += [(FOUNDATION, 0)] if FOUNDATION in results.evaluations else []
    for name, seed in models:
        content = (
            digest(results.evaluations[name].model_dump(mode="json"))
            if name == FOUNDATION
            else state(results, name, seed)
        )
        up_to_date = synced.get(content)
        if up_to_date is None:
            with locked(client, root, settings.system):
                make = _foundation_run if name == FOUNDATION else _training_run
                run_id = make(client, experiment, results, name, seed)
                log_evaluation(client, run_id, results, name, seed)
                client.set_tag(run_id, "retemper.synced", content)
            up_to_date = client.get_run(run_id)
        set_tags(client, up_to_date, {SYSTEM: settings.system})  # runs of earlier versions had none
        by_name.setdefault(name, {})[seed] = up_to_date
    return by_name


def _foundation_run(client: MlflowClient, experiment: str, results: Results, name: str, seed: int) -> str:
    """The run that holds the foundation's evaluation: found by its content, or made."""
    root, content = results.root, digest(results.evaluations[name].model_dump(mode="json"))
    candidates = runs_with(client, experiment, key=content, strategy=name, seed=seed)
    run = next((candidate for candidate in candidates if is_of_project(candidate, root)), None)
    if run is None:
        settings = results.settings
        note = f"The untouched foundation {settings.foundation}, measured on the test sets of **{settings.system}**."
        tags = run_tags(None, name, seed, content) | project_tags(root) | page_tags(settings.system, name, note)
        run = client.create_run(experiment, run_name=run_name(settings.system, name), tags=tags)
        inputs = [lineage.foundation_file(root, results.settings.foundation, lineage.dvc_hashes(root))]
        log_datasets(client, run.info.run_id, dataset_inputs(inputs))
    if run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id, "FINISHED")
    return str(run.info.run_id)


def _training_run(client: MlflowClient, experiment: str, results: Results, strategy: str, seed: int) -> str:
    """The run of a finished seed: found by its model or key, completed, or made."""
    root, training, summary = results.root, results.trainings[strategy][seed], results.summaries[strategy]
    model = training.finished.sha256
    start_time, end_time = _times(training)
    identity: dict[str, str | int] = {"strategy": strategy, "seed": seed}
    candidates = [
        candidate
        for candidate in runs_with(client, experiment, model_sha256=model, **identity)
        if is_of_project(candidate, root)
    ]
    run = min(candidates, key=lambda candidate: "retemper.superseded" in candidate.data.tags, default=None)
    if run is None:
        key = training.finished.key
        run = _attempt(client, experiment, root, {"key": key, **identity})
        if run is not None and not same_history(client, run, training):
            _supersede(client, run, "trained again")
            run = None
        if run is None:
            system = results.settings.system
            tags = run_tags(summary.origin, strategy, seed, key) | project_tags(root)
            tags |= training_tags(system, summary.foundation, strategy, seed)
            run = client.create_run(experiment, start_time, tags, run_name(system, strategy, "seed", seed))
    elif "retemper.superseded" in run.data.tags:  # its files are back
        client.delete_tag(run.info.run_id, "retemper.superseded")
    epochs = {"epochs": training.effective.asked.max_epochs} if training.effective else {}
    settings = summary.settings.model_dump()
    parameters = {"system": results.settings.system, "foundation": summary.foundation, **settings, **epochs}
    describe(client, run, root, parameters)
    run_id = str(run.info.run_id)
    index_training(client, run_id, training, "FINISHED", end_time)
    _follow(client, client.get_run(run_id))
    return run_id


def _times(training: Training) -> tuple[int, int]:
    """When a finished training began and ended, ms."""
    outcome = training.finished
    return int(1000 * (outcome.ended - outcome.seconds)), int(1000 * outcome.ended)
