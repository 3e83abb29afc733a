"""The sweep of one strategy: an Optuna study that Ray Tune works off, and what is left of it in ``runs/sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import filelock
import optuna

from retemper.config.settings import Settings
from retemper.config.strategies import load
from retemper.core.errors import RetemperError
from retemper.core.files import digest, write_json
from retemper.finetune import planning
from retemper.finetune.plan import Plan, counted
from retemper.sweep import objectives as measures
from retemper.sweep import optuna_study as studies
from retemper.sweep import output, resources, table, tracking, trial
from retemper.sweep import space as spaces
from retemper.sweep.choice import WEIGHT

CACHE = ".cache/sweep"
TRAINING = ".cache/training"
PRUNE_FROM = 8  # trials; with fewer there is too little to compare with
RETRIES = 2  # of a trial whose process was killed; it goes on from its last epoch


def run(settings: Settings, strategy: str, root: Path) -> None:
    """Search until ``sweep.trials`` trials are over, then write ``runs/sweep/<strategy>``.

    A sweep that was interrupted goes on; one that is over is only written again.

    Raises
    ------
    RetemperError
        Retention cannot be measured, no trial came to an end, or the same sweep runs already.
    """
    options = settings.sweep
    retention = measures.retention_file(root)
    measures.check(options.objectives, retention)
    if WEIGHT[options.scope] > 0 and retention is None:
        raise RetemperError(
            f"sweep.scope {options.scope} weighs retention, and there are no structures to measure it on.",
            fix="set replay.pool in params.yaml to a labelled file, or sweep.scope to single-system",
        )
    budget = settings.model_copy(
        update={
            "seeds": settings.seeds[:1],
            "finetune": settings.finetune.model_copy(update={"epochs": options.epochs or settings.finetune.epochs}),
        }
    )

    def plan_of(params: dict[str, Any]) -> Plan:
        return planning.plans(budget, strategy, root, params)[0]

    default = plan_of({})
    space = spaces.of(
        load(strategy, root, settings.finetune.overrides),
        settings,
        default.target.n_train,
        default.replay.n_train if default.replay else 0,
    )
    about = identity(default, space, settings, strategy, retention)
    folder = root / CACHE / about["study"]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / "lock", timeout=0):
            study = studies.open_study(folder, f"{strategy}-{about['study']}", options.objectives)
            write_json(folder / "about.json", about)
            _search(settings, strategy, root, study, space, about, plan_of, retention)
            output.write(settings, strategy, root, study, space, about)
            tracking.finish_sweep(settings, root, strategy)
    except filelock.Timeout:
        raise RetemperError(
            f"A sweep of {strategy} with these settings runs already.",
            fix="wait for it; `retemper sweep status` shows it",
        ) from None


def identity(
    default: Plan, space: spaces.Space, settings: Settings, strategy: str, retention: Path | None
) -> dict[str, Any]:
    """What a study is of. ``study`` is its key; studies of one ``family`` may start each other warm."""
    data = {
        "target": [default.target.train_hash, default.target.valid_hash],
        "replay": [default.replay.train_hash, default.replay.valid_hash] if default.replay else None,
        "foundation_sha256": default.foundation_sha256,
    }
    about: dict[str, Any] = {
        "strategy": strategy,
        "foundation": settings.foundation,
        "data": data,
        "retention": counted(retention)[1] if retention else None,
        "objectives": list(settings.sweep.objectives),
        "epochs": default.epochs,
        "seed": default.seed,
        "default": default.key,
        "space": space.describe(),
        "family": digest([strategy, data]),
    }
    return {"study": digest(about), **about}


def _search(
    settings: Settings,
    strategy: str,
    root: Path,
    study: optuna.Study,
    space: spaces.Space,
    about: dict[str, Any],
    plan_of: Any,
    retention: Path | None,
) -> None:
    """Work off what is missing of the study."""
    options = settings.sweep
    left = options.trials - studies.ended(study)
    if left <= 0:
        print(f"{strategy}: {studies.ended(study)} trials are there, nothing to search", flush=True)
        return
    broken = studies.recover(study)
    if not study.get_trials(deepcopy=False):
        studies.begin(study, space)
        added, queued = studies.warm_start(study, space, root / CACHE, about, plan_of)
        if added or queued:
            print(f"{strategy}: earlier sweeps give {added} finished trial(s) and {queued} setting(s) to try")
    elif broken or studies.ended(study):
        print(f"{strategy}: going on after {studies.ended(study)} trials, {broken} of them broken off")
    with resources.connected(settings):
        _tune(settings, strategy, root, study, space, about, plan_of, retention, left)
    if studies.ended(study) < options.trials:
        raise RetemperError(
            f"The sweep of {strategy} was interrupted after {studies.ended(study)} of {options.trials} trials.",
            fix="run it again: it goes on where it was",
        )


def _tune(
    settings: Settings,
    strategy: str,
    root: Path,
    study: optuna.Study,
    space: spaces.Space,
    about: dict[str, Any],
    plan_of: Any,
    retention: Path | None,
    left: int,
) -> None:
    """Let Ray Tune run `left` trials."""
    from ray import tune

    from retemper.sweep import callbacks, search

    options, folder = settings.sweep, root / CACHE / about["study"]
    at_once = min(left, resources.places(settings))
    prune = options.prune if options.prune is not None else options.trials >= PRUNE_FROM
    print(
        f"{strategy}: {left} of {options.trials} trials to run, {at_once} at a time, {about['epochs']} epochs, early "
        f"stopping {'on' if prune else 'off'}; optuna-dashboard {studies.address(folder)}",
        flush=True,
    )
    sweep_run = tracking.start_sweep(settings, root, strategy, about)
    print(table.header(list(options.objectives), space), flush=True)
    config = {
        "retention": str(retention) if retention else None,
        "objectives": list(options.objectives),
        "prune": prune,
        "training": str(root / TRAINING),
        "token": str(folder / "token"),
        "study": about["study"],
    }
    (folder / "token").write_text(about["study"])
    watcher = callbacks.Watch(study, space, settings, sweep_run, root)
    tuner = tune.Tuner(
        tune.with_resources(trial.run, resources.resources(settings)),
        tune_config=tune.TuneConfig(
            search_alg=search.StudySearch(
                study,
                space,
                options.objectives,
                search.sampler(study, options.seed, options.trials),
                plan_of,
                config,
            ),
            scheduler=search.halving(study, about["epochs"], options.objectives, root / TRAINING) if prune else None,
            num_samples=left,
            max_concurrent_trials=at_once,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[watcher],
        ),
    )
    try:
        tuner.fit()
    except KeyboardInterrupt:
        watcher.interrupted()
        raise
