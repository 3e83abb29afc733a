"""Where MLflow keeps its runs and models, and how this project talks to it.

The store is ``mlflow.db`` (sqlite) with ``mlartifacts/`` at the project root, or whatever
``MLFLOW_TRACKING_URI`` names.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from retemper.core.files import digest, project_root
from retemper.records.origin import Origin
from retemper.records.runs import Results
from retemper.tracking import embedded_store, lineage
from retemper.tracking.pages import EXPERIMENT, NOTE
from retemper.tracking.store_errors import ARTIFACTS, explain
from retemper.tracking.store_errors import DATABASE as DATABASE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run


# Tags of runs.
CHECKOUT, PROCESS, PROJECT = "retemper.checkout", "retemper.process", "retemper.project"
PAGE = 1000  # runs a request
FIRST_ANSWER = 13  # s in which a server must answer
LONGEST_KEY = 250  # characters of a metric's name

_own_variables: set[str] = set()  # variables of the environment that `impatient` has set


def tracking_uri(root: Path | None = None) -> str:
    """``MLFLOW_TRACKING_URI``, or the embedded store of the project at `root`."""
    address = os.environ.get("MLFLOW_TRACKING_URI")
    return address or embedded_store.uri((root or project_root()).resolve() / DATABASE)


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
    with impatient(retries=0, seconds=FIRST_ANSWER):
        client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def impatient(retries: int, seconds: int | None) -> Iterator[None]:
    """Requests to a server are tried again `retries` times at most, each for so many seconds (`None`: MLflow's).

    What the user has set wins; within such a block another one has its own patience.
    """
    patience = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries)}
    if seconds is not None:
        patience["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(seconds)
    earlier = {name: os.environ.get(name) for name in patience}
    changed = [name for name, value in earlier.items() if value is None or name in _own_variables]
    new = set(changed) - _own_variables
    os.environ.update({name: patience[name] for name in changed})
    _own_variables.update(new)
    try:
        yield
    finally:
        _own_variables.difference_update(new)
        for name in changed:
            value = earlier[name]
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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

    stored = client.get_experiment_by_name(name)
    if stored is None:
        embedded = not tracking_uri(root).startswith(("http", "databricks"))
        try:
            place = (root.resolve() / ARTIFACTS).as_uri() if embedded else None
            return str(client.create_experiment(name, place, {NOTE: EXPERIMENT}))
        except MlflowException:  # another process was faster
            stored = client.get_experiment_by_name(name)
            if stored is None:
                raise
    return str(stored.experiment_id)


@contextlib.contextmanager
def default_store(root: Path) -> Iterator[None]:
    """Make the project's store the one that MLflow itself uses, where its code does not ask a client."""
    address = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(root)
    try:
        yield
    finally:
        if address is None:
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
        raise explain(error, tracking_uri(root)) from error


# ------------------------------------------------------------------ what runs and metrics say of themselves


def runs_where(client: MlflowClient, experiment: str, condition: str) -> Iterator[Run]:
    """Runs of an experiment for which MLflow's `condition` holds, newest first."""
    page: Any = None
    while page is None or page.token:
        token = page.token if page else None
        page = client.search_runs(
            [experiment], condition, max_results=PAGE, order_by=["attributes.start_time DESC"], page_token=token
        )
        yield from page


def runs_with(client: MlflowClient, experiment: str, **tags: str | int) -> list[Run]:
    """Runs with these ``retemper.`` tags, newest first."""
    condition = " and ".join(f"tags.`retemper.{name}` = '{value}'" for name, value in tags.items())
    return list(runs_where(client, experiment, condition))


def find_run(client: MlflowClient, experiment: str, **tags: str | int) -> Run | None:
    """The newest run with these ``retemper.`` tags that nothing has superseded."""
    candidates = runs_with(client, experiment, **tags)
    return next((run for run in candidates if "retemper.superseded" not in run.data.tags), None)


def checkout(root: Path) -> str:
    """The folder that a run is made in, on which machine: on a shared server two checkouts train the same at once."""
    return f"{platform.node()}:{root}"


def project_tags(root: Path) -> dict[str, str]:
    """Tags that say whose a run is: project and folder."""
    project = lineage.project_identity(root)
    return {CHECKOUT: checkout(root)} | ({PROJECT: project} if project else {})


def process_tags() -> dict[str, str]:
    """The tag that says which process a run lives in."""
    process = psutil.Process()
    return {PROCESS: f"{platform.node()} {process.pid} {process.create_time():.0f}"}


def set_tags(client: MlflowClient, run: Run, tags: Mapping[str, str]) -> None:
    """Set those that differ."""
    from mlflow.entities import RunTag

    new = [RunTag(name, value) for name, value in tags.items() if run.data.tags.get(name) != value]
    if new:
        client.log_batch(run.info.run_id, tags=new)


def close_dead(client: MlflowClient, experiment: str) -> None:
    """Runs of this machine that are RUNNING in a process that is no more become KILLED."""
    for run in list(runs_where(client, experiment, "attributes.status = 'RUNNING'")):
        host, _, process = run.data.tags.get(PROCESS, "").partition(" ")
        if host == platform.node() and not _lives(process):
            client.set_terminated(run.info.run_id, "KILLED")


def _lives(process: str) -> bool:
    number, _, since = process.partition(" ")
    try:
        began = float(psutil.Process(int(number)).create_time())
        return abs(began - float(since)) < 2.0
    except psutil.NoSuchProcess:
        return False


def is_of_project(run: Run, root: Path) -> bool:
    """Whether a run is not another project's; what does not say whose it is may be anyone's."""
    project, owner = lineage.project_identity(root), run.data.tags.get(PROJECT)
    return project is None or owner is None or project == owner or is_embedded(root)


def log_params(client: MlflowClient, run_id: str, flat: Mapping[str, str]) -> None:
    """Parameters, as many at once as MLflow takes."""
    from mlflow.entities import Param

    params = [Param(name, text) for name, text in flat.items()]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])


def metric_key(name: str) -> str:
    """`name` as MLflow takes it: where letters are replaced or cut off, some digits keep it apart from others."""
    plain = re.sub(r"[^\w./ :-]", "_", name)
    parts = [part if part.strip(".") else "_" * max(1, len(part)) for part in plain.split("/")]
    plain = "/".join(parts)
    if plain == name and len(name) <= LONGEST_KEY:
        return name
    return f"{plain[: LONGEST_KEY - 7]}-{digest(name)[:6]}"


def log_datasets(client: MlflowClient, run_id: str, inputs: list[DatasetInput]) -> None:
    """A run's data sets; once more where another process stored one of them at the same moment."""
    from mlflow.exceptions import MlflowException

    try:
        client.log_inputs(run_id, datasets=inputs)
    except MlflowException as error:
        if "IntegrityError" not in str(error):
            raise
        client.log_inputs(run_id, datasets=inputs)


def run_tags(origin: Origin | None, strategy: str, seed: int, key: str) -> dict[str, str]:
    """Tags of a new run: identity, code and machine, where its `origin` is known."""
    tags = {"retemper.strategy": strategy, "retemper.seed": str(seed), "retemper.key": key}
    if origin is None:
        return tags
    if origin.git.commit:
        tags |= {"mlflow.source.git.commit": origin.git.commit, "git.dirty": str(origin.git.dirty).lower()}
    tags |= {f"version.{name}": version for name, version in origin.versions.items()}
    return tags | {f"machine.{name}": value for name, value in origin.machine.items()}


def dataset_inputs(files: Iterable[lineage.DataFile]) -> list[DatasetInput]:
    """Data files as MLflow's dataset inputs; the digest is the md5 by which DVC stores the file."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for file in files:
        source = json.dumps({"path": file.path, "dvc_path": file.dvc_path, "dvc_md5": file.dvc_md5})
        dataset = Dataset(file.role, file.md5, source_type="dvc", source=source)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", file.use)]))
    return inputs


def flatten(content: Mapping[str, object], prefix: str = "") -> dict[str, str]:
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
    """`Results.flat` for MLflow, each with the data set it was measured on."""
    from mlflow.entities import Metric

    root, settings = results.root, results.settings
    test = next((f for f in lineage.training_data(root, settings, None) if f.role == "test"), None)
    sets = {"target": test, "retention": lineage.retention_data(root, settings)}
    summary = results.summaries[name].seeds.get(seed) if name in results.summaries else None
    step = max(0, summary.best_epoch) if summary else 0
    now = int(time.time() * 1000)
    metrics = []
    for key, value in results.flat(name, seed).items():
        data = None if key.startswith("robustness") else sets["target" if key.startswith("target") else "retention"]
        name_of_set, hash_of_set = (data.role, data.md5) if data else (None, None)
        metrics.append(Metric(metric_key(key), value, now, step, model_id, name_of_set, hash_of_set, run_id))
    return metrics
