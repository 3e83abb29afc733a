"""The search of a sweep: an Optuna study that Ray Tune works off, and what is left of it in ``runs/sweep``."""

from __future__ import annotations

import filelock
import optuna

from retemper.config.project import Project
from retemper.core.errors import RetemperError
from retemper.core.output import log
from retemper.records.sweep import ABOUT, BestSetting
from retemper.sweep import optuna_study as studies
from retemper.sweep import output, resources, setup, table, trial
from retemper.sweep.setup import Sweep
from retemper.tracking import sweeps as tracking

PRUNE_FROM = 8  # trials; with fewer there is too little to compare with
RETRIES = 2  # of a trial whose process was killed; it goes on from its last epoch


def search(project: Project, strategy: str) -> BestSetting:
    """Search until ``sweep.trials`` trials are over, then write ``runs/sweep/<strategy>``.

    A sweep that was interrupted goes on; one that is over is only written again.

    Raises
    ------
    RetemperError
        Retention cannot be measured, no trial came to an end, or the same sweep runs already.
    """
    sweep = setup.make_sweep(project, strategy)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(sweep.folder / "lock", timeout=0):
            study = studies.open_study(sweep.folder, f"{strategy}-{sweep.about.study}", sweep.about.objectives)
            sweep.about.write(sweep.folder / ABOUT)
            _search(sweep, study)
            best = output.write(sweep, study)
            tracking.finish_sweep(project, strategy)
            return best
    except filelock.Timeout:
        raise RetemperError(
            f"A sweep of {strategy} with these settings runs already.",
            fix="wait for it; `retemper sweep status` shows it",
        ) from None


def _search(sweep: Sweep, study: optuna.Study) -> None:
    """Work off what is missing of the study."""
    settings, strategy = sweep.project.settings, sweep.strategy
    trials = settings.sweep.trials
    remaining = trials - studies.number_ended(study)
    if remaining <= 0:
        log.info(f"{strategy}: {studies.number_ended(study)} trials are there, nothing to search")
        return
    broken = studies.recover(study)
    if not study.get_trials(deepcopy=False):
        studies.begin(study, sweep.space)
        added, queued = studies.warm_start(study, sweep.space, sweep.folder.parent, sweep.about, sweep.plan)
        if added or queued:
            log.info(f"{strategy}: earlier sweeps give {added} finished trial(s) and {queued} setting(s) to try")
    elif broken or studies.number_ended(study):
        log.info(f"{strategy}: going on after {studies.number_ended(study)} trials, {broken} of them broken off")
    with resources.connection(settings):
        _tune(sweep, study, remaining)
    if studies.number_ended(study) < trials:
        raise RetemperError(
            f"The sweep of {strategy} was interrupted after {studies.number_ended(study)} of {trials} trials.",
            fix="run it again: it goes on where it was",
        )


def _tune(sweep: Sweep, study: optuna.Study, remaining: int) -> None:
    """Let Ray Tune run `remaining` trials."""
    from ray import tune

    from retemper.sweep import callbacks
    from retemper.sweep import search as searches

    project, about, settings = sweep.project, sweep.about, sweep.project.settings
    options = settings.sweep
    concurrent = min(remaining, resources.places(settings))
    prune = options.prune if options.prune is not None else options.trials >= PRUNE_FROM
    log.info(
        f"{sweep.strategy}: {remaining} of {options.trials} trials to run, {concurrent} at a time, "
        f"{about.epochs} epochs, early stopping {'on' if prune else 'off'}; "
        f"optuna-dashboard {studies.address(sweep.folder)}"
    )
    sweep_run = tracking.start_sweep(project, about)
    log.info(table.header(about.objectives, sweep.space))
    (sweep.folder / trial.TOKEN).write_text(about.study)
    watcher = callbacks.Watch(study, sweep, sweep_run)
    sampler = searches.sampler(study, options.seed, options.trials)
    halving = searches.halving(study, about.epochs, about.objectives, project.cache("training")) if prune else None
    tuner = tune.Tuner(
        tune.with_resources(trial.run, resources.resources(settings)),
        tune_config=tune.TuneConfig(
            search_alg=searches.StudySearch(study, sweep, sampler, prune),
            scheduler=halving,
            num_samples=remaining,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(sweep.folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[watcher],
        ),
    )
    try:
        tuner.fit()
    except KeyboardInterrupt:
        watcher.interrupt()
        raise
