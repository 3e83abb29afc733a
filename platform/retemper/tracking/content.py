"""What a run in MLflow holds: parameters, curves, outcome, files and measured numbers, from the files of a seed.

Everything that is there stays, so that writing again changes nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.config.settings import load_settings
from retemper.core.files import digest, sha256
from retemper.records.dataset import DatasetManifest
from retemper.records.runs import Results, Training
from retemper.records.training import Outcome
from retemper.tracking import lineage
from retemper.tracking.store import dataset_inputs, flatten, log_datasets, log_params, metric_entities

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

FILES = ("effective.json", "mace.yaml", "history.csv", "walk.csv")  # those that a strategy leaves
MODEL = "retemper.model_sha256"  # tag of a run that came to its end: the weights that it left
BATCH = 1000  # metrics that MLflow takes at once


def state(results: Results, strategy: str, seed: int) -> str:
    """Digest of all that a run shows; a run that has it in its tag ``retemper.synced`` is up to date."""
    training, summary = results.trainings[strategy][seed], results.summaries[strategy]
    evaluated = bool(results.numbers(strategy, seed))
    return digest(
        [
            results.settings.system,
            strategy,
            seed,
            summary.model_dump(mode="json", exclude={"seeds"}),
            training.finished.model_dump(mode="json"),
            files_identity(training),
            results.flat(strategy, seed) if evaluated else None,
        ]
    )


def files_identity(training: Training) -> str:
    """Digest of the files of a seed that its run keeps."""
    files = [path for name in FILES if (path := training.folder / name).is_file()]
    return digest([(path.name, lineage.file_md5(path)) for path in files])


def curve(rows: list[dict[str, float]], stored: dict[int, Metric], start_time: int) -> list[list[Metric]]:
    """Batches of the metrics of epochs that are not in `stored`; an epoch is in one batch. `start_time` is in ms.

    An epoch's time is not before that of the epochs before it, which may be there with their own.
    """
    from mlflow.entities import Metric

    batches: list[list[Metric]] = [[]]
    clock = start_time
    for row in rows:
        clock += int(1000 * row.get("seconds", 0.0))
        epoch = int(row["epoch"])
        if epoch in stored:
            clock = max(clock, stored[epoch].timestamp)
            continue
        metrics = [Metric(name, value, clock, epoch) for name, value in row.items() if name != "epoch"]
        if len(batches[-1]) + len(metrics) > BATCH:
            batches.append([])
        batches[-1] += metrics
    return [batch for batch in batches if batch]


def stored_epochs(client: MlflowClient, run: Run) -> dict[int, Metric]:
    """Training loss by epoch, of the epochs that a run has."""
    if "train_loss" not in run.data.metrics:
        return {}
    return {metric.step: metric for metric in client.get_metric_history(run.info.run_id, "train_loss")}


def index_training(
    client: MlflowClient, run_id: str, training: Training, status: str, end_time: int | None = None
) -> None:
    """Epochs, outcome, files and status of a seed's folder into its run; `end_time` (ms) where it is not now."""
    from mlflow.entities import Metric, RunTag

    run = client.get_run(run_id)
    for batch in curve(training.history, stored_epochs(client, run), run.info.start_time):
        client.log_batch(run_id, metrics=batch)
    clock = run.info.start_time + int(1000 * sum(row.get("seconds", 0.0) for row in training.history))
    final = _outcome(training.outcome) if training.outcome else {}
    numbers = [Metric(name, value, clock, 0) for name, value in final.items() if name not in run.data.metrics]
    if numbers:
        client.log_batch(run_id, metrics=numbers)
    identity = files_identity(training)
    if run.data.tags.get("retemper.files") != identity:
        _log_files(client, run_id, training)
    tags = {"retemper.files": identity, "retemper.proven": str(training.proven).lower()}
    if training.outcome:
        tags["retemper.converged"] = str(training.outcome.converged).lower()
    if status == "FINISHED" and training.model.is_file():
        tags[MODEL] = training.outcome.sha256 if training.outcome else sha256(training.model)
    client.log_batch(run_id, tags=[RunTag(n, v) for n, v in tags.items() if run.data.tags.get(n) != v])
    if run.info.status != status:
        client.set_terminated(run_id, status, end_time)


def _outcome(outcome: Outcome) -> dict[str, float]:
    return {
        "best_epoch": float(outcome.best_epoch),
        "best_valid_loss": outcome.valid_loss,
        "training_seconds": outcome.seconds,
        "training_cpu_seconds": outcome.cpu_seconds,
        "trainable_share": outcome.trainable_share,
    }


def _log_files(client: MlflowClient, run_id: str, training: Training) -> None:
    """The seed's files and its learning curve, in one go."""
    from retemper.plotting.plots import learning_curve_png

    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            if (training.folder / name).is_file():
                (Path(folder) / name).write_bytes((training.folder / name).read_bytes())
        if training.history:
            picture = Path(folder) / "learning-curve.png"
            learning_curve_png(training.history, picture, f"{training.strategy}, seed {training.seed}")
        client.log_artifacts(run_id, folder)


def same_history(client: MlflowClient, run: Run, training: Training) -> bool:
    """Whether every epoch that the store has is the one of ``history.csv``."""
    losses = {int(row["epoch"]): row["train_loss"] for row in training.history}
    stored = {step: metric.value for step, metric in stored_epochs(client, run).items()}
    return all(step in losses and abs(losses[step] - value) <= 1e-9 * abs(value) for step, value in stored.items())


def log_evaluation(client: MlflowClient, run_id: str, results: Results, name: str, seed: int) -> None:
    """Metrics and parity plots of one seed into its run, once for each content of ``metrics.json``."""
    if not results.numbers(name, seed):
        return
    flat = results.flat(name, seed)
    identity = digest(flat)
    if client.get_run(run_id).data.tags.get("retemper.evaluation") == identity:
        return
    client.log_batch(run_id, metrics=metric_entities(results, name, seed))
    folder = results.project.evaluation(name)
    client.log_artifact(run_id, str(folder / "metrics.json"), "evaluate")
    if (folder / "parity.csv").is_file():
        from retemper.plotting.plots import parity_png

        with tempfile.TemporaryDirectory() as temporary:
            for path in parity_png(folder / "parity.csv", seed, Path(temporary), name):
                client.log_artifact(run_id, str(path), "evaluate")
    robust = results.project.robustness(name) / f"seed-{seed}"
    if robust.is_dir():
        client.log_artifacts(run_id, str(robust), "robustness")
    client.set_tag(run_id, "retemper.evaluation", identity)


def describe(client: MlflowClient, run: Run, root: Path, settings: Mapping[str, object]) -> None:
    """Parameters that are not there yet, and the identity of the data."""
    from mlflow.entities import RunTag

    flat = flatten({name: value for name, value in settings.items() if name not in ("about", "search")})
    log_params(client, run.info.run_id, {n: text for n, text in flat.items() if n not in run.data.params})
    labels = next((text for name, text in flat.items() if f".{name}".endswith(".replay.labels")), None)
    files = lineage.training_data(root, load_settings(root / "params.yaml"), labels)
    log_datasets(client, run.info.run_id, dataset_inputs(files))
    data_tags = {f"dvc.{file.dvc_path}": file.dvc_md5 for file in files if file.dvc_path and file.dvc_md5}
    manifest = root / "runs/dataset/manifest.json"
    label_tags = {"dataset.labels": DatasetManifest.read(manifest).labels_used()[:5000]} if manifest.is_file() else {}
    client.log_batch(run.info.run_id, tags=[RunTag(name, value) for name, value in (data_tags | label_tags).items()])
