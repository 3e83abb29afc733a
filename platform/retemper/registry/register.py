"""Fine-tuned models as versions of one registered MLflow model per system.

A version is one seed of one strategy. It is known by these two and the sha256 of its
weights, so registering the same result again changes nothing. The numbers it
is judged by are copied into its tags, because MLflow cannot search versions by metric. The
way back is `retemper.load`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from retemper.config.metric_names import DRIFT, DRIFT_OF, RATIOS, RETENTION, ROBUSTNESS, TARGET
from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core import experiment
from retemper.core.errors import RetemperError
from retemper.core.files import digest, require_sha256
from retemper.records import registration
from retemper.records.registration import BestSeed, Registration
from retemper.records.runs import FOUNDATION, Results, read_results
from retemper.records.trained_model import TrainedModel
from retemper.registry import aliases, artifact, attachments, logged_model, measurements, model_card
from retemper.registry.client import Registry, Version, open_registry
from retemper.registry.versions import CANDIDATE
from retemper.tracking import embedded_store, lineage
from retemper.tracking import runs as tracking
from retemper.tracking.store import default_store, metric_entities, tracking_uri
from retemper.tracking.store_errors import ARTIFACTS, ASIDE, DATABASE, StoreError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RECORDED = "recorded"  # tag of a version, the last that is written: the hash of all that stands with it
TAGGED = (  # numbers that a version is judged by, beside robustness
    *(f"{part}.{quantity}" for part in (TARGET, RETENTION, DRIFT) for quantity in ("energy_rmse", "force_rmse")),
    *RATIOS,
)
# Tags of a version that are its training run's, by their names there.
FROM_RUN = {"git_commit": "mlflow.source.git.commit", "git_dirty": "git.dirty", "machine": "machine.processor"}


def run(project: Project, strategy: str) -> Registration:
    """Register every seed of a strategy and write ``runs/register/<strategy>.json``; see `index`.

    An experiment of DVC may never be kept, and registries do not go back: it registers nothing, and the file says so.
    """
    name = experiment.name()
    if name is not None:
        record = Registration(model=project.settings.system, versions={}, experiment=name)
    else:
        record = index(project, [strategy])[strategy]
    record.write(project.registered(strategy))
    return record


def describe(strategy: str, record: Registration) -> str:
    """What was registered, in two lines."""
    if record.best is None:
        return experiment.keep(str(record.experiment))
    versions = ", ".join(f"seed {seed} is {record.model}/{number}" for seed, number in record.versions.items())
    error = f"target force RMSE {record.best.numbers['target.force_rmse']:.1f} meV/A"
    return f"{strategy}: {versions}\nbest: {record.model}/{record.best.version}, {error}"


def sync(project: Project) -> int:
    """Bring the store up to date with what was registered: versions, aliases. Files are left as they are.

    Returns
    -------
    int
        How many versions there are for the strategies of the settings.
    """
    results = read_results(project)
    names = [name for name in results.registered if name in results.summaries and name in results.evaluations]
    return sum(len(record.versions) for record in index(project, names).values()) if names else 0


def index(project: Project, strategies: list[str]) -> dict[str, Registration]:
    """Register every seed of strategies, or bring their versions up to date; what is up to date costs one search.

    Their training runs are brought up to date in MLflow first. The alias ``candidate`` goes to the
    strategy with the lowest force RMSE on the target test set, mean over seeds, among the
    strategies registered so far on this test set, and there to the seed with the lowest. The
    choice is made on the test set, so its RMSE is a little optimistic.

    Raises
    ------
    RetemperError
        Training or evaluation has not run, a model file is not the one that was trained, the name belongs to
        another project on this server, or MLflow cannot be reached.
    """
    root, settings = project.root, project.settings
    results = read_results(project, strategies=strategies)
    for strategy in strategies:
        if strategy not in results.summaries:
            raise RetemperError(f"Strategy {strategy} has not been trained.", fix=f"dvc repro finetune@{strategy}")
        for name, stage in ((strategy, f"evaluate@{strategy}"), (FOUNDATION, FOUNDATION)):
            if name not in results.evaluations:
                raise RetemperError(f"{name} has not been evaluated.", fix=f"dvc repro -f {stage}")
    system = settings.system
    with open_registry(root) as registry:
        runs = tracking.runs(registry.client, results)
        _ensure_registered_model(registry.client, settings)
        aliases.require_ownership(registry, root, system)
        registered = registry.versions(system)
        records = {}
        with default_store(root):
            for strategy in strategies:
                versions = {
                    seed: _register_seed(registry, results, strategy, seed, run, registered)
                    for seed, run in runs[strategy].items()
                }
                records[strategy] = _record(project, results, strategy, versions)
        _tag_logged_models(
            registry, root, system, {str(run.info.experiment_id) for run in runs[strategies[0]].values()}
        )
        _set_candidate(registry, project, records)
        with registry.locked(system):
            aliases.settle(registry, root, system)  # a rebuilt store gets its champion back
    return records


def _record(project: Project, results: Results, strategy: str, versions: dict[int, str]) -> Registration:
    best = min(versions, key=lambda seed: _force_rmse(results, strategy, seed))
    weights = results.trainings[strategy][best].finished.sha256
    best_seed = {"seed": best, "version": versions[best], "sha256": weights, **numbers(results, strategy, best)}
    return Registration(
        model=results.settings.system,
        versions=versions,
        best=BestSeed.model_validate(best_seed),
        force_rmse=results.numbers(strategy)["target.force_rmse"].value,
        test_md5=lineage.file_md5(project.structures("test")),
    )


def numbers(results: Results, strategy: str, seed: int) -> dict[str, float]:
    """What a version is judged by: RMSE in meV/atom and meV/A, forgetting ratios, robustness, as far as measured."""
    estimates = results.numbers(strategy, seed)
    kept = tuple(f"{DRIFT_OF}{head}.force_rmse" for head in results.settings.replay.heads)
    named = (*TAGGED, *kept)
    return {name: estimates[name].value for name in estimates if name in named or name.startswith(ROBUSTNESS)}


def _force_rmse(results: Results, strategy: str, seed: int) -> float:
    estimate = results.numbers(strategy, seed).get("target.force_rmse")
    if estimate is None:
        raise RetemperError(
            f"Seed {seed} of {strategy} has no target force RMSE.", fix=f"dvc repro evaluate@{strategy}"
        )
    return estimate.value


def _ensure_registered_model(client: MlflowClient, settings: Settings) -> None:
    """Make the registered model where there is none."""
    from mlflow.exceptions import MlflowException

    description = (
        f"Fine-tuned MACE models for {settings.system} ({settings.dataset.level_of_theory}), one version a strategy "
        f"and seed. The alias `{CANDIDATE}` marks the lowest force RMSE on the target test set, `champion` the version "
        "in use (by the gates, or promoted by a person with a reason), `challenger` the best of the others."
    )
    try:
        client.create_registered_model(settings.system, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _register_seed(
    registry: Registry, results: Results, strategy: str, seed: int, run: Run, registered: list[Version]
) -> str:
    """The version of a seed: the one that is among `registered`, its numbers brought up to date, or a new one."""
    training, system = results.trainings[strategy][seed], results.settings.system
    weights = training.finished.sha256
    if not training.model.is_file():
        raise RetemperError(f"{training.model} is not there.", fix=f"dvc pull, or dvc repro finetune@{strategy}")
    what = f"{training.model} is not the model that was trained."
    require_sha256(training.model, weights, what, f"dvc checkout, or dvc repro -f finetune@{strategy}")
    run_id = str(run.info.run_id)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    tags = {
        "strategy": strategy,
        "seed": str(seed),
        "foundation": results.settings.foundation,
        "head": logged_model.HEAD,
        "key": run.data.tags["retemper.key"],
        **{name: str(value) for name, value in numbers(results, strategy, seed).items()},
        "sha256": weights,
        **{n: v for n, v in run.data.tags.items() if n.startswith("dvc.")},
        **{f"data.{entry.dataset.name}": entry.dataset.digest for entry in inputs},
    }
    tags |= {name: run.data.tags[source] for name, source in FROM_RUN.items() if source in run.data.tags}
    card = model_card.write(results, strategy, seed, tags)
    model, measures = TrainedModel(weights, strategy, seed), measurements.collect(results, strategy, seed)
    # Of two that trained the same weights the first says on which machine.
    lasting = {name: value for name, value in tags.items() if name not in FROM_RUN}
    identity = digest([lasting, results.flat(strategy, seed)])
    version = next((version for version in registered if version.model == model), None)
    if version is not None and version.tags.get(RECORDED) == identity:
        attachments.keep(registry, version, results, measures)
        return version.number
    client = registry.client
    with registry.locked(system):
        versions = registry.versions(system)  # another process may have registered it meanwhile
        version = next((version for version in versions if version.model == model), None)
        if version is not None:
            registry.tag(version, lasting)
            registry.describe(version, card)
        else:
            logged_model.drop_unregistered(client, run, versions)
            model_id, tags[artifact.TAG] = logged_model.log(client, results, strategy, seed, run_id, tags, card)
            source = f"models:/{model_id}"
            created = client.create_model_version(
                system, source, run_id, tags=tags, description=card, model_id=model_id
            )
            version = Version.of(created)
        attachments.keep(registry, version, results, measures)
        client.set_logged_model_tags(version.model_id, tags)
        logged_model.log_metrics(
            client, version.model_id, metric_entities(results, strategy, seed, version.model_id, run_id)
        )
        registry.tag(version, {RECORDED: identity})
    return version.number


def _tag_logged_models(registry: Registry, root: Path, system: str, experiments: set[str]) -> None:
    """Tag the logged models of an embedded store with their versions, as a server does by itself.

    Raises
    ------
    StoreError
        The files of a version are not where the store says.
    """
    if embedded_store.file_of(tracking_uri(root)) is None:
        return
    versions = {version.model_id: version for version in registry.versions(system)}
    page: Any = None
    while page is None or page.token:
        page = registry.client.search_logged_models(sorted(experiments), page_token=page.token if page else None)
        for logged in page:
            version = versions.get(logged.model_id)
            if version is None:
                continue
            place = urlsplit(str(logged.artifact_location))
            if place.scheme == "file" and not (Path(unquote(place.path)) / "MLmodel").is_file():
                raise StoreError(
                    f"The files of {version.name} are not in {unquote(place.path)}.",
                    expected=f"{ARTIFACTS}/ beside {DATABASE}",
                    fix=f"bring {ARTIFACTS}/ from where {DATABASE} came from, or {ASIDE}",
                )
            mark = json.dumps([{"name": system, "version": int(version.number)}])
            if logged.tags.get("mlflow.modelVersions") != mark:
                registry.client.set_logged_model_tags(logged.model_id, {"mlflow.modelVersions": mark})


def _set_candidate(registry: Registry, project: Project, latest: dict[str, Registration]) -> None:
    """Give the alias to the best version of the best strategy registered on the same test set."""
    system, records = project.settings.system, list(latest.values())
    paths = [project.registered(name) for name in project.settings.strategies if name not in latest]
    records += registration.comparable(paths, system, str(records[0].test_md5))
    best = min(records, key=lambda record: math.inf if record.force_rmse is None else record.force_rmse).best
    assert best is not None
    registered = {(version.model.sha256, version.model.seed): version.number for version in registry.versions(system)}
    number = registered.get((best.sha256, best.seed))
    if number is None:  # registered in another store, and not in this one yet
        return
    if registry.entry(system).aliases.get(CANDIDATE) != number:
        registry.point(system, CANDIDATE, number)
