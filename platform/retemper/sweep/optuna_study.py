"""The Optuna study of a sweep: its storage, its trials, and how it is taken up again after a kill.

Every study is a folder ``.cache/sweep/<key>`` with ``study.db`` (sqlite, which Optuna's dashboard opens) and
``about.json``. The key is a hash of the data, the foundation, the strategy with its search space, the budget
of a trial and the objectives; the number of trials is not part of it, so asking for more goes on.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL

from retemper.config.strategies import Point, SearchRange
from retemper.finetune.plan import Plan
from retemper.records.record import OtherFormError
from retemper.records.sweep import ABOUT, SweepStudy
from retemper.sweep.choice import Trial, front
from retemper.sweep.objectives import HOLES
from retemper.sweep.space import Space

DATABASE = "study.db"
ENQUEUED = 3  # best settings of an earlier study whose results do not carry over
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def storage(folder: Path) -> optuna.storages.RDBStorage:
    """The storage of a study's folder; made where there is none."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    folder.mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(address(folder), engine_kwargs={"connect_args": {"timeout": 30}})


def address(folder: Path) -> str:
    """The database of a study's folder as SQLAlchemy is told of it, whatever characters the path has."""
    return URL.create("sqlite", database=str(folder / DATABASE)).render_as_string()


def open_study(folder: Path, name: str, objectives: Sequence[str]) -> optuna.Study:
    """The study called `name` in `folder`, made where there is none; every objective is minimised."""
    study = optuna.create_study(
        storage=storage(folder), study_name=name, directions=["minimize"] * len(objectives), load_if_exists=True
    )
    if study.metric_names is None:
        study.set_metric_names(list(objectives))
    return study


def read(folder: Path) -> list[Trial]:
    """The trials of a study's folder by number."""
    (summary,) = optuna.get_all_study_summaries(storage(folder))
    return trials(optuna.load_study(study_name=summary.study_name, storage=storage(folder)))


def trials(study: optuna.Study) -> list[Trial]:
    """All trials of a study by number, without those that an interruption broke off."""
    records = []
    for trial in study.get_trials(deepcopy=False):
        attributes = trial.user_attrs
        if attributes.get("interrupted"):
            continue
        fixed = trial.system_attrs.get("fixed_params", {})
        seconds = trial.duration.total_seconds() if trial.duration and not attributes.get("earlier") else 0.0
        records.append(
            Trial(
                number=trial.number,
                state=STATES[trial.state],
                params=trial.params or fixed,
                values=attributes.get("values", {}),
                epochs=attributes.get("epochs", 0),
                seconds=attributes.get("seconds", seconds),
                training=attributes.get("training", ""),
                reason=attributes.get("reason", ""),
                earlier=attributes.get("earlier", ""),
            )
        )
    return records


def number_ended(study: optuna.Study) -> int:
    """Trials of this very sweep that are over: complete, pruned or failed."""
    return sum(trial.state in ("complete", "pruned", "failed") and not trial.earlier for trial in trials(study))


def begin(study: optuna.Study, space: Space) -> None:
    """Put the strategy's own setting first into an empty study."""
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(space.default())


def recover(study: optuna.Study) -> int:
    """Mark trials that a killed sweep left running as failed, and queue their settings again.

    Their training goes on from the last epoch, since its folder is named by its content.
    """
    broken = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.RUNNING]
    for trial in broken:
        study.enqueue_trial(trial.params)
        study._storage.set_trial_user_attr(trial._trial_id, "interrupted", True)
        study.tell(trial.number, state=TrialState.FAIL)
    return len(broken)


def warm_start(
    study: optuna.Study, space: Space, cache: Path, about: SweepStudy, plan_of: Callable[[Point], Plan]
) -> tuple[int, int]:
    """Take over what earlier studies of the same strategy, data and foundation found.

    A finished trial whose training is, to the hash, one that this sweep would run is added with its
    results. Of a study whose results do not carry over (another budget, other fixed settings) the best
    settings are queued.

    Returns
    -------
    tuple of int
        Trials added, trials queued.
    """
    added = queued = 0
    trainings = {trial.training for trial in trials(study)}
    default = plan_of(space.default()).key
    for earlier, folder in known_studies(cache):
        if earlier.study == about.study or earlier.family != about.family:
            continue
        finished = [trial for trial in read(folder) if trial.state == "complete" and not trial.earlier]
        missing = [trial for trial in finished if not set(about.objectives) <= set(trial.values)]
        usable = [(trial, space.complete(trial.params)) for trial in finished if trial not in missing]
        transferable = 0
        for trial, point in usable:
            if point is None or plan_of(point).key != trial.training or earlier.retention != about.retention:
                continue
            transferable += 1
            if trial.training in trainings or trial.training == default:
                continue
            trainings.add(trial.training)
            study.add_trial(_frozen_trial(trial, point, space, about.objectives, earlier.study))
            added += 1
        if transferable == 0:
            best = front([trial for trial, point in usable if point is not None], about.objectives)[:ENQUEUED]
            for trial in best:
                point = space.complete(trial.params)
                if point is not None and point != space.default():
                    study.enqueue_trial(point, skip_if_exists=True)
                    queued += 1
    return added, queued


def known_studies(folder: Path) -> list[tuple[SweepStudy, Path]]:
    """Studies in the folders of a folder, with these; not those that another version of the program began."""
    entries = []
    for path in sorted(folder.glob(f"*/{ABOUT}")):
        with contextlib.suppress(OtherFormError):
            entries.append((SweepStudy.read(path), path.parent))
    return entries


def _frozen_trial(trial: Trial, point: Point, space: Space, objectives: Sequence[str], earlier: str) -> FrozenTrial:
    attributes = {"values": trial.values, "epochs": trial.epochs, "training": trial.training, "earlier": earlier}
    return optuna.trial.create_trial(
        params=point,
        distributions={path: distribution(space.active(path, point)) for path in point},
        values=[trial.values[name] for name in objectives],
        user_attrs=attributes,
    )


def distribution(search_range: SearchRange | None) -> optuna.distributions.BaseDistribution:
    """A search range as Optuna's distribution."""
    assert search_range is not None
    if search_range.choices is not None:
        return optuna.distributions.CategoricalDistribution(search_range.choices)
    assert search_range.low is not None and search_range.high is not None
    return optuna.distributions.FloatDistribution(search_range.low, search_range.high, log=search_range.log)


def least_trials(parameters: int) -> int:
    """Complete trials from which the shares of so many parameters are worth a look; a rule of thumb."""
    return max(10, 4 * parameters)


def importance(study_trials: Sequence[Trial], space: Space, objectives: Sequence[str]) -> dict[str, dict[str, float]]:
    """Share of the variance of each objective's logarithm (of holes: itself) that each parameter explains (fANOVA).

    Hutter, Hoos and Leyton-Brown, ICML 2014. Parameters that are not in every complete trial are left
    out; with fewer complete trials than `least_trials` nothing can be said and the result is empty.
    """
    complete = [trial for trial in study_trials if trial.state == "complete"]
    shared = [path for path in space.ranges if all(path in trial.params for trial in complete)]
    if len(complete) < least_trials(len(shared)):
        return {}
    result: dict[str, dict[str, float]] = {}
    for name in objectives:
        study = optuna.create_study()
        for trial in complete:
            study.add_trial(
                optuna.trial.create_trial(
                    params={path: trial.params[path] for path in shared},
                    distributions={path: distribution(space.union(path)) for path in shared},
                    value=trial.values[name] if name == HOLES else math.log(max(trial.values[name], 1e-12)),
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        result[name] = {path: float(share) for path, share in shares.items()}
    return result
