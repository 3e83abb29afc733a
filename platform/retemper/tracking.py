"""Training runs and evaluations in MLflow: an index over the files under ``runs/``.

The files are the truth. While a seed trains, its epochs are sent to the tracking store as
they come; whatever does not arrive is filled in from ``history.csv`` when the seed ends, or
by `sync`, which rebuilds every run that is missing. A tracking store that cannot be reached
costs a warning, never a training run.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper import lineage
from retemper.files import digest, project_root, read_json, sha256
from retemper.finetune import course
from retemper.manifest import labels_used
from retemper.mlflow_store import (
    connect,
    dataset_inputs,
    experiment_id,
    find_run,
    flatten,
    impatient,
    metric_entities,
    quiet,
    run_tags,
    store_errors,
    tracking_uri,
)
from retemper.results import FOUNDATION, Results, Training, evaluation_metrics, read_results, read_training
from retemper.settings import Settings, load_settings
from retemper.store_errors import StoreError, explained

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FILES = ("effective.json", "mace.yaml", "history.csv")


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
    settings: dict[str, Any], *, experiment: str, strategy: str, seed: int, root: Path, key: str
) -> str | None:
    """Open the run of one seed, or the one that a killed process left.

    Parameters
    ----------
    settings : dict
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
        run = find_run(client, experiment_number, key=key, strategy=strategy, seed=seed)
        if run is None:
            run = client.create_run(
                experiment_number,
                run_name=f"{strategy}/seed-{seed}",
                tags=run_tags(lineage.origin(root), strategy, seed, key),
            )
        else:
            client.update_run(run.info.run_id, status="RUNNING")
        run_id = str(run.info.run_id)
        _describe(client, run, root, settings)
        steps = {metric.step for metric in client.get_metric_history(run_id, "train_loss")}
        _live[run_id] = _Live(client, root, steps)
        _given_up.discard(run_id)
        return run_id
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
        client = live.client if live else connect(root)
        tags = client.get_run(run_id).data.tags
        training = read_training(Path(folder), tags["retemper.strategy"], int(tags["retemper.seed"]))
        if _same_history(client, run_id, training):
            _index_training(client, run_id, training, status)
        else:
            _supersede(client, run_id)


@contextlib.contextmanager
def never_fatal(uri: str, run_id: str | None = None) -> Iterator[None]:
    """Turn a store that fails into one warning, without waiting long for it."""
    quiet()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with impatient():
            yield
    except (StoreError, MlflowException, SQLAlchemyError, OSError) as error:
        if run_id is not None:
            _given_up.add(run_id)
        said = error if isinstance(error, StoreError) else explained(error, uri)
        warnings.warn(
            f"MLflow does not take this run. Training goes on; history.csv holds the numbers, and `retemper sync` "
            f"puts them into MLflow later.\n{said}",
            RuntimeWarning,
            stacklevel=3,
        )


# ------------------------------------------------------------------ from files


def sync(root: str | Path, settings: Settings, strategies: list[str] | None = None) -> dict[str, dict[int, str]]:
    """Bring MLflow up to date with the finished seeds and evaluations under ``runs/``.

    Runs that are there are completed, those that are not are made from the files. Doing it
    again changes nothing.

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
    results = read_results(root, settings, strategies=strategies)
    with store_errors(root):
        client = connect(root)
        experiment_number = experiment_id(client, root, settings.tracking.experiment)
        runs: dict[str, dict[int, str]] = {}
        for strategy, summary in results.summaries.items():
            runs[strategy] = {}
            for seed, training in results.trainings[strategy].items():
                run_id = _training_run(client, experiment_number, root, training, summary)
                runs[strategy][seed] = run_id
                _log_evaluation(client, run_id, results, strategy, seed)
        if FOUNDATION in results.evaluations:
            content = digest(results.evaluations[FOUNDATION])
            run = find_run(client, experiment_number, key=content, strategy=FOUNDATION, seed=0)
            if run is None:
                run = client.create_run(
                    experiment_number, run_name=FOUNDATION, tags=run_tags({}, FOUNDATION, 0, content)
                )
                inputs = [lineage.foundation_file(root, settings.foundation, lineage.dvc_hashes(root))]
                client.log_inputs(run.info.run_id, datasets=dataset_inputs(inputs))
                client.set_terminated(run.info.run_id, "FINISHED")
            runs[FOUNDATION] = {0: str(run.info.run_id)}
            _log_evaluation(client, runs[FOUNDATION][0], results, FOUNDATION, 0)
    return runs


def _training_run(
    client: MlflowClient, experiment: str, root: Path, training: Training, summary: dict[str, Any]
) -> str:
    """The run of a finished seed: found by its model or key, completed, or made."""
    strategy, seed = training.strategy, training.seed
    model = training.outcome["sha256"]
    run = find_run(client, experiment, model_sha256=model, strategy=strategy, seed=seed)
    if run is None:
        key = str(training.outcome.get("key", model[:16]))
        run = find_run(client, experiment, key=key, strategy=strategy, seed=seed)
        if run is not None and not _same_history(client, run.info.run_id, training):
            _supersede(client, run.info.run_id)
            run = None
        if run is None:
            ended = (training.folder / "history.csv").stat().st_mtime
            started = int(1000 * (ended - sum(row.get("seconds", 0.0) for row in training.history)))
            name = f"{strategy}/seed-{seed}"
            tags = run_tags(summary.get("origin", {}), strategy, seed, key)
            run = client.create_run(experiment, started, tags, name)
        _describe(client, run, root, {"foundation": summary["foundation"], **summary["settings"]})
    _index_training(client, str(run.info.run_id), training, "FINISHED")
    return str(run.info.run_id)


def _index_training(client: MlflowClient, run_id: str, training: Training, status: str) -> None:
    """Epochs, outcome, files and status of a seed's folder into its run; what is there stays."""
    from mlflow.entities import Metric, RunTag

    run = client.get_run(run_id)
    have = {name: {m.step for m in client.get_metric_history(run_id, name)} for name in run.data.metrics}
    clock = run.info.start_time
    metrics = []
    for row in training.history:
        clock += int(1000 * row.get("seconds", 0.0))
        epoch = int(row["epoch"])
        metrics += [Metric(n, v, clock, epoch) for n, v in row.items() if n != "epoch" and epoch not in have.get(n, ())]
    final = {
        "best_epoch": training.outcome.get("best_epoch"),
        "best_valid_loss": training.outcome.get("valid_loss"),
        "training_seconds": training.outcome.get("seconds"),
        "training_cpu_seconds": training.outcome.get("cpu_seconds"),
        "trainable_share": training.trainable_share,
    }
    metrics += [Metric(n, float(v), clock, 0) for n, v in final.items() if v is not None and n not in have]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])

    files = [path for name in FILES if (path := training.folder / name).is_file()]
    identity = digest([(path.name, lineage.file_md5(path)) for path in files])
    if run.data.tags.get("retemper.files") != identity:
        from retemper.plots import learning_curve_png

        with tempfile.TemporaryDirectory() as folder:
            if training.history:
                curve = Path(folder) / "learning-curve.png"
                learning_curve_png(training.history, curve, f"{training.strategy}, seed {training.seed}")
                files.append(curve)
            for path in files:
                client.log_artifact(run_id, str(path))
    tags = {"retemper.files": identity, "retemper.proven": str(training.proven).lower()}
    if "best_epoch" in training.outcome:
        tags["retemper.converged"] = str(course.converged(training.outcome)).lower()
    if status == "FINISHED" and training.model.is_file():
        tags["retemper.model_sha256"] = training.outcome.get("sha256") or sha256(training.model)
    client.log_batch(run_id, tags=[RunTag(n, v) for n, v in tags.items() if run.data.tags.get(n) != v])
    if run.info.status != status:
        client.set_terminated(run_id, status)


def _supersede(client: MlflowClient, run_id: str) -> None:
    """Put a run aside whose epochs are not those of the folder: it was trained again. `sync` makes another one."""
    client.set_tag(run_id, "retemper.superseded", "true")
    client.set_terminated(run_id, "KILLED")


def _same_history(client: MlflowClient, run_id: str, training: Training) -> bool:
    """Whether every epoch that the store has is the one of ``history.csv``."""
    own = {int(row["epoch"]): row["train_loss"] for row in training.history}
    stored = {metric.step: metric.value for metric in client.get_metric_history(run_id, "train_loss")}
    return all(step in own and abs(own[step] - value) <= 1e-9 * abs(value) for step, value in stored.items())


# ------------------------------------------------------------------ evaluations


def _log_evaluation(client: MlflowClient, run_id: str, results: Results, name: str, seed: int) -> None:
    """Metrics and parity plots of one seed into its run, once for each content of ``metrics.json``."""
    evaluation = results.evaluations.get(name)
    if evaluation is None or str(seed) not in evaluation["seeds"]:
        return
    flat = evaluation_metrics(results, name, seed)
    identity = digest(flat)
    if client.get_run(run_id).data.tags.get("retemper.evaluation") == identity:
        return
    client.log_batch(run_id, metrics=metric_entities(results, name, seed))
    folder = results.root / "runs/evaluate" / name
    client.log_artifact(run_id, str(folder / "metrics.json"), "evaluate")
    if (folder / "parity.csv").is_file():
        from retemper.plots import parity_png

        with tempfile.TemporaryDirectory() as temporary:
            for path in parity_png(folder / "parity.csv", seed, Path(temporary), name):
                client.log_artifact(run_id, str(path), "evaluate")
    robust = results.root / "runs/robustness" / name / f"seed-{seed}"
    if robust.is_dir():
        client.log_artifacts(run_id, str(robust), "robustness")
    client.set_tag(run_id, "retemper.evaluation", identity)


# ------------------------------------------------------------------ what a run says of itself


def _describe(client: MlflowClient, run: Run, root: Path, settings: dict[str, Any]) -> None:
    """Parameters that are not there yet, and the identity of the data."""
    from mlflow.entities import Param, RunTag

    flat = flatten({name: value for name, value in settings.items() if name not in ("about", "search")})
    new = [Param(name, text) for name, text in flat.items() if name not in run.data.params]
    for start in range(0, len(new), 100):
        client.log_batch(run.info.run_id, params=new[start : start + 100])
    labels = next((text for name, text in flat.items() if f".{name}".endswith(".replay.labels")), None)
    files = lineage.training_data(root, load_settings(root / "params.yaml"), labels)
    client.log_inputs(run.info.run_id, datasets=dataset_inputs(files))
    held = {f"dvc.{file.dvc_path}": file.dvc_md5 for file in files if file.dvc_path and file.dvc_md5}
    manifest = root / "runs/dataset/manifest.json"
    used = {"dataset.labels": labels_used(read_json(manifest))[:5000]} if manifest.is_file() else {}
    client.log_batch(run.info.run_id, tags=[RunTag(name, value) for name, value in (held | used).items()])
