"""The weights of a version as MLflow keeps and serves them: a logged model without code of its own, and its metrics."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper.records.runs import Results
from retemper.registry import artifact, attachments
from retemper.registry.client import Version
from retemper.tracking.pages import NOTE, model_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

HEAD = "Default"  # MACE's name of the head that learned the target data


def log(
    client: MlflowClient, results: Results, strategy: str, seed: int, run_id: str, tags: dict[str, str], card: str
) -> tuple[str, str]:
    """Store the weights as pyfunc model without code of its own; returns its identifier and the artifact's digest.

    The model's page shows `tags` and the model card.
    """
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array

    # Nothing is required and cells are of any type: MLflow answers what it misses with status 500, the model with 400.
    any_type: Any = AnyType
    matrix, either = Array(Array(DataType.double)), any_type()
    columns: list[tuple[Any, str]] = [
        (Array(DataType.long), "numbers"),
        (matrix, "positions"),
        (either, "cell"),
        (either, "pbc"),
        *((either, name) for name in ("charge", "spin", "total_charge", "total_spin")),
    ]
    signature = ModelSignature(
        inputs=Schema([ColSpec(kind, name, required=False) for kind, name in columns]),
        outputs=Schema([ColSpec(DataType.double, "energy"), ColSpec(matrix, "forces"), ColSpec(either, "stress")]),
    )
    run = client.get_run(run_id)
    name = model_name(results.settings.system, strategy, seed)
    shown = tags | {NOTE: card}
    logged = client.create_logged_model(run.info.experiment_id, name, run_id, shown, run.data.params, "MACE")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*An input example was not provided")  # the signature says it all
        path = Path(folder) / "model"
        mlflow.pyfunc.save_model(
            path=str(path),
            mlflow_model=Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id),
            loader_module="retemper.mlflow_model",
            data_path=str(results.trainings[strategy][seed].model),
            model_config={"head": HEAD, "device": "cpu", "dtype": "float64"},
            signature=signature,
            pip_requirements=artifact.requirements(),
        )
        artifact.add_package(path)
        artifact_digest = artifact.digest(path)
        attachments.add_origin(results.root, path / attachments.FOLDER)
        client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id), artifact_digest


def log_metrics(client: MlflowClient, model_id: str, metrics: list[Metric]) -> None:
    """Log a run's metrics with its logged model; those whose latest value is already there are not logged twice."""
    logged = sorted(client.get_logged_model(model_id).metrics or [], key=lambda metric: metric.timestamp)
    latest = {metric.key: metric.value for metric in logged}
    new = [metric for metric in metrics if latest.get(metric.key) != metric.value]
    if new:
        client.log_batch(str(new[0].run_id), metrics=new)


def drop_unregistered(client: MlflowClient, run: Run, versions: list[Version]) -> None:
    """Delete the logged models of a run that no version stands for: what a registration left that was killed."""
    registered = {version.source.removeprefix("models:/") for version in versions}
    condition = f"source_run_id = '{run.info.run_id}'"
    for logged in client.search_logged_models([run.info.experiment_id], filter_string=condition):
        if logged.model_id not in registered:
            client.delete_logged_model(logged.model_id)
