"""Fine-tuned models as versions of one registered MLflow model per system, and back as ASE calculators.

A version is one seed of one strategy. It is known by the sha256 of its weights and the key
of its configuration, so registering the same result again changes nothing. The numbers it
is judged by are copied into its tags, because MLflow cannot search versions by metric.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retemper import lineage, model_card, tracking
from retemper.errors import RetemperError, unknown
from retemper.files import atomic_write, project_root, read_json, sha256, write_json
from retemper.mlflow_store import (
    ARTIFACTS,
    DATABASE,
    connect,
    default_store,
    metric_entities,
    store_errors,
    tracking_uri,
)
from retemper.results import FOUNDATION, Results, forgetting_ratio, read_results, seed_value, summary_value
from retemper.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

HEAD = "Default"  # MACE's name of the head that learned the target data
CANDIDATE = "candidate"  # alias of the version to look at first
WEIGHTS = "model.model"


def register(root: str | Path, settings: Settings, strategy: str) -> dict[str, Any]:
    """Register every seed of a strategy and write ``runs/register/<strategy>.json``.

    Its training runs are brought up to date in MLflow first. The alias ``candidate`` goes to the
    strategy with the lowest force RMSE on the target test set, mean over seeds, among the
    strategies registered so far on this test set, and there to the seed with the lowest. The
    choice is made on the test set, so its RMSE is a little optimistic.

    Returns
    -------
    dict
        ``model``, ``versions`` by seed, ``best`` (seed, version and numbers), ``force_rmse``
        (mean over seeds, meV/A), ``test_md5``.

    Raises
    ------
    RetemperError
        Training or evaluation has not run, a model file is not the one that was trained, or
        MLflow cannot be reached.
    """
    root = Path(root).resolve()
    results = read_results(root, settings, strategies=[strategy])
    if strategy not in results.summaries:
        raise RetemperError(f"Strategy {strategy} has not been trained.", fix=f"dvc repro finetune@{strategy}")
    for name, stage in ((strategy, f"evaluate@{strategy}"), (FOUNDATION, FOUNDATION)):
        if name not in results.evaluations:
            raise RetemperError(f"{name} has not been evaluated.", fix=f"dvc repro {stage}")
    runs = tracking.sync(root, settings, [strategy])[strategy]
    with store_errors(root):
        client = connect(root)
        _registered_model(client, settings)
        with default_store(root):
            versions = {seed: _register_seed(client, results, strategy, seed, run) for seed, run in runs.items()}
        best = min(versions, key=lambda seed: _force_rmse(results, strategy, seed))
        mean = summary_value(results.evaluations[strategy], "target", "force_rmse")
        assert mean is not None and mean["mean"] is not None
        record = {
            "model": settings.system,
            "versions": {str(seed): version for seed, version in versions.items()},
            "best": {"seed": best, "version": versions[best], **numbers(results, strategy, best)},
            "force_rmse": mean["mean"],
            "test_md5": lineage.file_md5(root / "runs/dataset/test.extxyz"),
        }
        write_json(root / f"runs/register/{strategy}.json", record)
        _set_candidate(client, root, settings, record)
    return record


def numbers(results: Results, strategy: str, seed: int) -> dict[str, Any]:
    """What a version is judged by: RMSE in meV/atom and meV/A, forgetting ratios, sha256 of the weights."""
    evaluation, foundation = results.evaluations[strategy], results.evaluations.get(FOUNDATION)
    found: dict[str, Any] = {}
    for part in ("target", "retention"):
        for quantity in ("energy_rmse", "force_rmse"):
            measured = seed_value(evaluation, seed, part, quantity)
            found[f"{part}_{quantity}"] = measured["value"] if measured else None
    found["forgetting_ratio"] = forgetting_ratio(foundation, evaluation, seed)
    found["forgetting_ratio_replay_head"] = forgetting_ratio(foundation, evaluation, seed, "retention_replay_head")
    robust = results.robustness.get(strategy, {}).get("seeds", {}).get(str(seed), {}).get("metrics", {})
    found |= {f"robustness_{metric}": measured["value"] for metric, measured in robust.items()}
    found["sha256"] = results.trainings[strategy][seed].outcome["sha256"]
    return {name: value for name, value in found.items() if value is not None}


def _force_rmse(results: Results, strategy: str, seed: int) -> float:
    measured = seed_value(results.evaluations[strategy], seed, "target", "force_rmse")
    if measured is None:
        raise RetemperError(
            f"Seed {seed} of {strategy} has no target force RMSE.", fix=f"dvc repro evaluate@{strategy}"
        )
    return measured["value"]


def _registered_model(client: MlflowClient, settings: Settings) -> None:
    """Make the registered model where there is none."""
    from mlflow.exceptions import MlflowException

    about = (
        f"Fine-tuned MACE models for {settings.system} ({settings.dataset.level_of_theory}), one version a strategy "
        f"and seed. The alias `{CANDIDATE}` marks the lowest force RMSE on the target test set."
    )
    try:
        client.create_registered_model(settings.system, description=about)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _register_seed(client: MlflowClient, results: Results, strategy: str, seed: int, run_id: str) -> str:
    """The version of a seed: the one that is there, its numbers brought up to date, or a new one."""
    training, system = results.trainings[strategy][seed], results.settings.system
    weights = training.outcome["sha256"]
    got = sha256(training.model)
    if got != weights:
        raise RetemperError(
            f"{training.model} is not the model that was trained.",
            expected=f"sha256 {weights}",
            got=f"sha256 {got}",
            fix=f"dvc checkout, or dvc repro -f finetune@{strategy}",
        )
    run = client.get_run(run_id)
    tags = {
        "strategy": strategy,
        "seed": str(seed),
        "foundation": results.settings.foundation,
        "head": HEAD,
        "key": run.data.tags["retemper.key"],
        **{name: str(value) for name, value in numbers(results, strategy, seed).items()},
        **{n: v for n, v in run.data.tags.items() if n.startswith("dvc.")},
    }
    if "mlflow.source.git.commit" in run.data.tags:
        tags["git_commit"] = run.data.tags["mlflow.source.git.commit"]
    card = model_card.write(results, strategy, seed, tags)
    existing = [
        v for v in _versions(client, system) if v.tags.get("sha256") == weights and v.tags.get("key") == tags["key"]
    ]
    if existing:
        version = existing[0]
        if version.tags == tags:
            return str(version.version)
        for name, value in tags.items():
            client.set_model_version_tag(system, version.version, name, value)
        client.update_model_version(system, version.version, card)
        model_id = _model_id(version)
    else:
        model_id = _log_model(client, results, strategy, seed, run_id, tags)
        version = client.create_model_version(
            system, f"models:/{model_id}", run_id, tags=tags, description=card, model_id=model_id
        )
    client.set_logged_model_tags(model_id, tags)
    client.log_batch(run_id, metrics=metric_entities(results, strategy, seed, model_id, run_id))
    return str(version.version)


def _log_model(
    client: MlflowClient, results: Results, strategy: str, seed: int, run_id: str, tags: dict[str, str]
) -> str:
    """Store the weights as pyfunc model made from code; returns its identifier."""
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    text, number = DataType.string, DataType.double
    required, optional = ("numbers", "positions"), ("cell", "pbc")
    signature = ModelSignature(
        inputs=Schema([*(ColSpec(text, n) for n in required), *(ColSpec(text, n, required=False) for n in optional)]),
        outputs=Schema([ColSpec(number, "energy"), ColSpec(text, "forces"), ColSpec(text, "stress")]),
    )
    packages = lineage.versions()
    requirements = [f"{name}=={packages[name]}" for name in ("mlflow", "mace-torch", "torch", "ase", "numpy")]
    run = client.get_run(run_id)
    name = f"{strategy}-seed-{seed}"
    logged = client.create_logged_model(run.info.experiment_id, name, run_id, tags, run.data.params, "MACE")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        mlflow.pyfunc.save_model(
            path=str(path),
            mlflow_model=Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id),
            python_model=str(Path(__file__).with_name("mlflow_model.py")),
            artifacts={"model": str(results.trainings[strategy][seed].model)},
            model_config={"sha256": tags["sha256"], "head": HEAD, "device": "cpu", "dtype": "float64"},
            signature=signature,
            pip_requirements=requirements,
        )
        client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _set_candidate(client: MlflowClient, root: Path, settings: Settings, latest: dict[str, Any]) -> None:
    """Give the alias to the best version of the best strategy registered on the same test set."""
    records = []
    for strategy in settings.strategies:
        path = root / f"runs/register/{strategy}.json"
        if path.is_file():
            record = read_json(path)
            if record["model"] == settings.system and record["test_md5"] == latest["test_md5"]:
                records.append(record)
    best = min(records or [latest], key=lambda record: record["force_rmse"])
    known = {(v.tags.get("sha256"), v.tags.get("seed")): v.version for v in _versions(client, settings.system)}
    version = known.get((best["best"]["sha256"], str(best["best"]["seed"])))
    if version is not None:  # None: registered in another store, and not in this one yet
        client.set_registered_model_alias(settings.system, CANDIDATE, version)


def _versions(client: MlflowClient, model: str) -> list[ModelVersion]:
    """All versions of a registered model, newest first."""
    found = list(client.search_model_versions(f"name = '{model}'", max_results=10000))
    return sorted(found, key=lambda version: -int(version.version))


def _model_id(version: ModelVersion) -> str:
    """Logged model behind a version; MLflow leaves the version's own field empty."""
    return str(version.source).removeprefix("models:/")


# ------------------------------------------------------------------ back again


def load(name_or_uri: str, *, device: str = "cpu", dtype: str = "float64", root: str | Path | None = None) -> Any:
    """ASE calculator of a registered model.

    Parameters
    ----------
    name_or_uri : str
        ``nacl`` (the candidate, or the newest version where there is none), ``nacl/3``,
        ``nacl@candidate``, each with or without ``models:/`` before it.
    device, dtype : str
        Where and in which precision to compute.
    root : path, optional
        Project whose embedded store to use; default: the one around the working directory.

    Returns
    -------
    ase.calculators.calculator.Calculator
        MACE's calculator with the head of the target data. eV, eV/A, eV/A^3.

    Raises
    ------
    RetemperError
        An unknown name or version, or weights whose sha256 is not the registered one: those
        are not opened.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, version = _fetch(name_or_uri, Path(folder), root)
        from retemper.mlflow_model import calculator

        try:
            return calculator(path, version.tags["sha256"], version.tags["head"], device, dtype)
        except ValueError as error:
            raise RetemperError(
                f"Version {version.version} of {version.name} cannot be loaded: {error}.",
                fix=f"register it again, or restore {ARTIFACTS} from a backup",
            ) from error


def weights(name_or_uri: str, folder: Path, root: str | Path | None = None) -> Path:
    """Model file of a registered model, named as for `load`, below `folder` under its sha256, which is checked."""
    with tempfile.TemporaryDirectory() as temporary:
        path, version = _fetch(name_or_uri, Path(temporary), root)
        expected, got = version.tags["sha256"], sha256(path)
        if got != expected:
            raise RetemperError(
                f"Version {version.version} of {version.name} is not what was registered. It was not opened.",
                expected=f"sha256 {expected}",
                got=f"sha256 {got}",
                fix=f"register it again, or restore {ARTIFACTS} from a backup",
            )
        with atomic_write(folder / f"{expected[:16]}.model") as place:
            shutil.copyfile(path, place)
    return folder / f"{expected[:16]}.model"


def _fetch(name_or_uri: str, folder: Path, root: str | Path | None) -> tuple[Path, ModelVersion]:
    """Download a registered model's weights into `folder`; their path and the version."""
    project = None if root is None else Path(root).resolve()
    with store_errors(project):
        client = _existing_store(project)
        version = _resolve(client, name_or_uri)
        from mlflow.artifacts import download_artifacts

        place = client.get_logged_model(_model_id(version)).artifact_location
        path = download_artifacts(
            artifact_uri=f"{place}/artifacts/{WEIGHTS}", dst_path=str(folder), tracking_uri=tracking_uri(project)
        )
    return Path(path), version


def _existing_store(root: Path | None) -> MlflowClient:
    """Client of a store that is there; nothing is created for a question."""
    import os

    if not os.environ.get("MLFLOW_TRACKING_URI") and not ((root or project_root()) / DATABASE).is_file():
        raise RetemperError(
            f"No models are registered: there is no {DATABASE}.", fix="dvc repro, or set MLFLOW_TRACKING_URI"
        )
    return connect(root)


def _resolve(client: MlflowClient, name_or_uri: str) -> ModelVersion:
    """The version that a name means."""
    from mlflow.exceptions import MlflowException

    name = name_or_uri.removeprefix("models:/")
    model, _, alias = name.partition("@")
    model, _, number = model.partition("/")
    found = _versions(client, model)
    if not found:
        raise unknown("registered model", model, [entry.name for entry in client.search_registered_models()])
    if number:
        chosen = next((version for version in found if str(version.version) == number), None)
        if chosen is None:
            raise unknown(f"version of {model}", number, [str(version.version) for version in found])
        return chosen
    try:
        return client.get_model_version_by_alias(model, alias or CANDIDATE)
    except MlflowException:
        if alias:
            raise unknown(f"alias of {model}", alias, client.get_registered_model(model).aliases) from None
        return found[0]
