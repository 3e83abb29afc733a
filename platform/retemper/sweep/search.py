"""Ray Tune's Optuna search and halving scheduler, mended where they lose what a sweep must keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

from retemper.records.runs import read_history
from retemper.sweep import optuna_study as studies
from retemper.sweep.objectives import signal
from retemper.sweep.setup import Sweep
from retemper.sweep.trial import TOKEN, Report, Task

REDUCTION = 3  # of the trials at a rung one in three goes on


class StudySearch(OptunaSearch):
    """`OptunaSearch` that turns suggestions into plans and records how each trial ended.

    Ray's own stores a trial that the scheduler stopped as complete, and cannot store values of several
    objectives together with a failure. Here a stopped trial is PRUNED, one that failed is FAIL with the
    reason, and only one that ran to its end is COMPLETE.
    """

    def __init__(self, study: optuna.Study, sweep: Sweep, sampler: Any, prune: bool):
        objectives = sweep.about.objectives
        super().__init__(
            space=sweep.space,
            metric=list(objectives),
            mode=["min"] * len(objectives),
            sampler=sampler,
            study_name=study.study_name,
            storage=study._storage,
        )
        self._study, self._sweep, self._prune = study, sweep, prune
        self._default = sweep.space.default()

    def suggest(self, trial_id: str) -> dict[str, Task] | None:
        """The next setting as a plan, with where it is trained."""
        params = super().suggest(trial_id)
        if params is None:
            return None
        trial = self._ot_trials[trial_id]
        sweep = self._sweep
        plan = sweep.plan(params)
        trial.set_user_attr("training", plan.key)
        task = Task(
            plan=plan,
            params=params,
            number=trial.number,
            is_default=params == self._default,
            folder=str(sweep.project.training(plan.key)),
            retention=str(sweep.retention) if sweep.retention else None,
            objectives=sweep.about.objectives,
            prune=self._prune,
            token=str(sweep.folder / TOKEN),
            study=sweep.about.study,
        )
        return {"task": task}

    def on_trial_complete(self, trial_id: str, result: Report | None = None, error: bool = False) -> None:
        """Record the end of a trial; what is known is written before its state, so that a kill loses nothing."""
        if trial_id in self._completed_trials:
            return
        trial, result = self._ot_trials[trial_id], result or {}
        trial.set_user_attr("epochs", int(result.get("epoch", 0)))
        if error or "failed" in result:
            trial.set_user_attr("reason", result.get("failed", "its process was killed, or ran out of memory"))
            self._study.tell(trial, state=TrialState.FAIL)
        elif values := {name.split("/")[1]: value for name, value in result.items() if name.startswith("finished/")}:
            trial.set_user_attr("values", values)
            trial.set_user_attr("seconds", result["seconds"])
            self._study.tell(trial, [values[name] for name in self._sweep.about.objectives])
        elif "epoch" in result:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            return  # stopped before its first epoch: left to `studies.recover`
        self._completed_trials.add(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is in its storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is in its storage."""


def sampler(study: optuna.Study, seed: int, trials: int) -> Any:
    """Tree-structured Parzen estimators over the joint space (Bergstra 2011; Ozaki 2022 for several objectives).

    The seed moves on with the study, or a sweep that is taken up again would repeat its first settings.
    """
    return optuna.samplers.TPESampler(
        seed=seed + len(study.get_trials(deepcopy=False)),
        n_startup_trials=max(4, min(10, trials // 3)),
        multivariate=True,
        group=True,
        constant_liar=True,
    )


class Halving(AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al., MLSys 2020) that never stops the strategy's own setting."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Report) -> str:
        """Stop or go on; the strategy's own setting is recorded in the rungs as every other."""
        decision = str(super().on_trial_result(tune_controller, trial, result))
        return self.CONTINUE if trial.config["task"].is_default else decision


def halving(study: optuna.Study, epochs: int, objectives: Sequence[str], training: Path) -> Any:
    """Early stopping on the combined signal, after an eighth of the epochs at the earliest.

    Ray forgets the rungs when a sweep is taken up again; here they are filled from the histories of the
    trials that have ended.
    """
    grace = max(1, epochs // 8)
    scheduler = Halving(
        time_attr="epoch", metric="signal", mode="min", max_t=epochs, grace_period=grace, reduction_factor=REDUCTION
    )
    (bracket,) = scheduler._brackets
    for trial in studies.trials(study):
        path = training / trial.training / "history.csv"
        if trial.state in ("complete", "pruned") and trial.training and path.is_file():
            for row in read_history(path)[: trial.epochs]:
                if "valid_retention.force_rmse" in row or "retention" not in objectives:
                    earlier: Any = SimpleNamespace(trial_id=f"earlier-{trial.number}")
                    bracket.on_result(earlier, int(row["epoch"]) + 1, -signal(row, objectives))
    return scheduler
