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
    found = []
    for one in study.get_trials(deepcopy=False):
        attributes = one.user_attrs
        if attributes.get("interrupted"):
            continue
        fixed = one.system_attrs.get("fixed_params", {})
        seconds = one.duration.total_seconds() if one.duration and not attributes.get("earlier") else 0.0
        found.append(
            Trial(
                number=one.number,
                state=STATES[one.state],
                params=one.params or fixed,
                values=attributes.get("values", {}),
                epochs=attributes.get("epochs", 0),
                seconds=attributes.get("seconds", seconds),
                training=attributes.get("training", ""),
                reason=attributes.get("reason", ""),
                earlier=attributes.get("earlier", ""),
            )
        )
    return found


def ended(study: optuna.Study) -> int:
    """Trials of this very sweep that are over: complete, pruned or failed."""
    return sum(one.state in ("complete", "pruned", "failed") and not one.earlier for one in trials(study))


def begin(study: optuna.Study, space: Space) -> None:
    """Put the strategy's own setting first into an empty study."""
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(space.default())


def recover(study: optuna.Study) -> int:
    """Mark trials that a killed sweep left running as failed, and queue their settings again.

    Their training goes on from the last epoch, since its folder is named by its content.
    """
    broken = [one for one in study.get_trials(deepcopy=False) if one.state == TrialState.RUNNING]
    for one in broken:
        study.enqueue_trial(one.params)
        study._storage.set_trial_user_attr(one._trial_id, "interrupted", True)
        study.tell(one.number, state=TrialState.FAIL)
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
    known = {one.training for one in trials(study)}
    default = plan_of(space.default()).key
    for earlier, folder in known_studies(cache):
        if earlier.study == about.study or earlier.family != about.family:
            continue
        finished = [one for one in read(folder) if one.state == "complete" and not one.earlier]
        missing = [one for one in finished if not set(about.objectives) <= set(one.values)]
        usable = [(one, space.complete(one.params)) for one in finished if one not in missing]
        same = 0
        for one, point in usable:
            if point is None or plan_of(point).key != one.training or earlier.retention != about.retention:
                continue
            same += 1
            if one.training in known or one.training == default:
                continue
            known.add(one.training)
            study.add_trial(_taken_over(one, point, space, about.objectives, earlier.study))
            added += 1
        if same == 0:
            best = front([one for one, point in usable if point is not None], about.objectives)[:ENQUEUED]
            for one in best:
                point = space.complete(one.params)
                if point is not None and point != space.default():
                    study.enqueue_trial(point, skip_if_exists=True)
                    queued += 1
    return added, queued


def known_studies(folder: Path) -> list[tuple[SweepStudy, Path]]:
    """Studies in the folders of a folder, with these; not those that another version of the program began."""
    found = []
    for path in sorted(folder.glob(f"*/{ABOUT}")):
        with contextlib.suppress(OtherFormError):
            found.append((SweepStudy.read(path), path.parent))
    return found


def _taken_over(one: Trial, point: Point, space: Space, objectives: Sequence[str], earlier: str) -> FrozenTrial:
    attributes = {"values": one.values, "epochs": one.epochs, "training": one.training, "earlier": earlier}
    return optuna.trial.create_trial(
        params=point,
        distributions={path: distribution(space.active(path, point)) for path in point},
        values=[one.values[name] for name in objectives],
        user_attrs=attributes,
    )


def distribution(one: SearchRange | None) -> optuna.distributions.BaseDistribution:
    """A search range as Optuna's distribution."""
    assert one is not None
    if one.choices is not None:
        return optuna.distributions.CategoricalDistribution(one.choices)
    assert one.low is not None and one.high is not None
    return optuna.distributions.FloatDistribution(one.low, one.high, log=one.log)


def least_trials(parameters: int) -> int:
    """Complete trials from which the shares of so many parameters are worth a look; a rule of thumb."""
    return max(10, 4 * parameters)


def importance(study_trials: Sequence[Trial], space: Space, objectives: Sequence[str]) -> dict[str, dict[str, float]]:
    """Share of the variance of each objective's logarithm (of holes: itself) that each parameter explains (fANOVA).

    Hutter, Hoos and Leyton-Brown, ICML 2014. Parameters that are not in every complete trial are left
    out; with fewer complete trials than `least_trials` nothing can be said and the result is empty.
    """
    complete = [one for one in study_trials if one.state == "complete"]
    shared = [path for path in space.ranges if all(path in one.params for one in complete)]
    if len(complete) < least_trials(len(shared)):
        return {}
    result: dict[str, dict[str, float]] = {}
    for name in objectives:
        study = optuna.create_study()
        for one in complete:
            study.add_trial(
                optuna.trial.create_trial(
                    params={path: one.params[path] for path in shared},
                    distributions={path: distribution(space.union(path)) for path in shared},
                    value=one.values[name] if name == HOLES else math.log(max(one.values[name], 1e-12)),
                )
            )
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        result[name] = {path: float(share) for path, share in found.items()}
    return result
