"""Where MLflow keeps its runs and models, and how this project talks to it.

The store is ``mlflow.db`` (sqlite) with ``mlartifacts/`` at the project root, or whatever
``MLFLOW_TRACKING_URI`` names.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper import embedded_store, lineage
from retemper.files import project_root
from retemper.results import Results, evaluation_metrics
from retemper.store_errors import ARTIFACTS, explained
from retemper.store_errors import DATABASE as DATABASE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run


def tracking_uri(root: Path | None = None) -> str:
    """``MLFLOW_TRACKING_URI``, or the embedded store of the project at `root`."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return given or embedded_store.uri((root or project_root()).resolve() / DATABASE)


def is_embedded(root: Path | None = None) -> bool:
    """Whether the store is a project's own ``mlflow.db``, by default or by its address."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return True
    file = embedded_store.file_of(tracking_uri(root))
    return file is not None and file.name == DATABASE and (file.parent / "params.yaml").is_file()


def connect(root: Path | None = None) -> MlflowClient:
    """Client of the tracking store; the embedded store is created first where there is none, and looked at.

    A server is asked once whether it answers: MLflow itself would try for four minutes.

    Raises
    ------
    StoreError
        The embedded store cannot be used (see `embedded_store.ready`).
    """
    quiet()
    uri = tracking_uri(root)
    file = embedded_store.file_of(uri)
    if file is None:
        return _client(uri)
    if is_embedded(root):
        embedded_store.ready(file.parent)
    elif file.exists():
        embedded_store.check(file)
    return _client(uri, file.stat().st_ino if file.exists() else 0)


@lru_cache(maxsize=8)
def _client(uri: str, file: int = 0) -> MlflowClient:
    """`file` tells a database from another that took its place."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    with impatient():
        client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def impatient(retries: int = 1, seconds: int | None = 6) -> Iterator[None]:
    """Requests to a server are tried again `retries` times at most, each for so many seconds (`None`: MLflow's)."""
    patience = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)}
    if seconds is not None:
        patience["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(seconds)
    added = {name: value for name, value in patience.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def quiet() -> None:
    """No telemetry, no progress bars, warnings only. Values already set by the user win."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)


def experiment_id(client: MlflowClient, root: Path, name: str) -> str:
    """Identifier of the experiment called `name`, which is created where there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        embedded = not tracking_uri(root).startswith(("http", "databricks"))
        try:
            return str(client.create_experiment(name, (root.resolve() / ARTIFACTS).as_uri() if embedded else None))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


@contextlib.contextmanager
def default_store(root: Path) -> Iterator[None]:
    """Make the project's store the one that MLflow itself uses, where its code does not ask a client."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(root)
    try:
        yield
    finally:
        if given is None:
            del os.environ["MLFLOW_TRACKING_URI"]


@contextlib.contextmanager
def store_errors(root: Path | None = None) -> Iterator[None]:
    """Failures of the tracking store as `StoreError`, without waiting long for it."""
    quiet()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with impatient(retries=2, seconds=None):
            yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise explained(error, tracking_uri(root)) from error


# ------------------------------------------------------------------ what runs and metrics say of themselves


def find_run(client: MlflowClient, experiment: str, **tags: str | int) -> Run | None:
    """The newest run with these ``retemper.`` tags that nothing has superseded."""
    wanted = " and ".join(f"tags.`retemper.{name}` = '{value}'" for name, value in tags.items())
    runs = client.search_runs([experiment], wanted, order_by=["attributes.start_time DESC"])
    return next((run for run in runs if "retemper.superseded" not in run.data.tags), None)


def run_tags(origin: Mapping[str, Any], strategy: str, seed: int, key: str) -> dict[str, str]:
    """Tags of a new run: identity, code and machine. `origin` is `lineage.origin`; empty where it is not known."""
    git = origin.get("git") or {}
    tags = {"retemper.strategy": strategy, "retemper.seed": str(seed), "retemper.key": key}
    if git.get("commit"):
        tags |= {"mlflow.source.git.commit": git["commit"], "git.dirty": str(git["dirty"]).lower()}
    tags |= {f"version.{name}": version for name, version in origin.get("versions", {}).items()}
    return tags | {f"machine.{name}": value for name, value in origin.get("machine", {}).items()}


def dataset_inputs(files: Iterable[lineage.DataFile]) -> list[DatasetInput]:
    """Data files as MLflow's dataset inputs; the digest is the md5 by which DVC stores the file."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for file in files:
        source = json.dumps({"path": file.path, "dvc_path": file.dvc_path, "dvc_md5": file.dvc_md5})
        dataset = Dataset(file.role, file.md5, source_type="dvc", source=source)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", file.use)]))
    return inputs


def flatten(content: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as ``a.b.c: text``, as MLflow's parameters want them (keys and texts bounded)."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        name = f"{prefix}{re.sub(r'[^A-Za-z0-9_. /-]', '_', str(key))}"
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name[:250]] = str(value)[:6000]
    return flat


def metric_entities(
    results: Results, name: str, seed: int, model_id: str | None = None, run_id: str | None = None
) -> list[Metric]:
    """`evaluation_metrics` for MLflow, each with the data set it was measured on."""
    from mlflow.entities import Metric

    root, settings = results.root, results.settings
    test = next((f for f in lineage.training_data(root, settings, None) if f.role == "test"), None)
    sets = {"target": test, "retention": lineage.retention_data(root, settings)}
    step = max(0, int(results.summaries.get(name, {}).get("seeds", {}).get(str(seed), {}).get("best_epoch", 0)))
    now = int(time.time() * 1000)
    metrics = []
    for key, value in evaluation_metrics(results, name, seed).items():
        data = None if key.startswith("robustness") else sets["target" if key.startswith("target") else "retention"]
        name_of_set, hash_of_set = (data.role, data.md5) if data else (None, None)
        metrics.append(Metric(key, value, now, step, model_id, name_of_set, hash_of_set, run_id))
    return metrics
