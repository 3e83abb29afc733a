"""What is seen of a sweep while it runs: one line a trial on the terminal, and the runs in MLflow."""

from __future__ import annotations

import sys
from typing import Any

import optuna
from ray.tune import Callback

from retemper.core.output import log
from retemper.sweep import optuna_study as studies
from retemper.sweep.choice import Trial, score
from retemper.sweep.setup import Sweep
from retemper.sweep.table import line
from retemper.sweep.trial import Report, Task
from retemper.tracking import sweeps as tracking


class Watch(Callback):
    """Prints and tracks; the study is written before these calls, so a line is true when it is seen."""

    def __init__(self, study: optuna.Study, sweep: Sweep, sweep_run: str | None):
        self.study, self.sweep, self.sweep_run = study, sweep, sweep_run
        self.options, self.objectives = sweep.project.settings.sweep, sweep.about.objectives
        self.runs: dict[int, str | None] = {}
        self.epochs: dict[int, int] = {}
        self.live = sys.stdout.isatty()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        task: Task = trial.config["task"]
        self.epochs.setdefault(task.number, 0)
        if task.number not in self.runs:
            self.runs[task.number] = tracking.start_trial(
                self.sweep_run,
                self.sweep.project,
                tracking.TrialSettings(task.number, task.plan.strategy, task.plan.epochs, task.params, task.plan.key),
            )
        self._status()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Report, **info: Any) -> None:
        if "row" in result:
            number = trial.config["task"].number
            self.epochs[number] = result["epoch"]
            tracking.log_trial_epoch(self.runs.get(number), result["row"])
            self._status()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._finish_trial(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._finish_trial(trial)

    def interrupt(self) -> None:
        """Someone ended the sweep: its run and those of the trials under way are killed, until it goes on."""
        under_way = [self.runs.get(number) for number in sorted(self.epochs)]
        tracking.interrupt([*under_way, self.sweep_run], self.sweep.project)

    def _finish_trial(self, trial: Any) -> None:
        number = trial.config["task"].number
        self.epochs.pop(number, None)
        records = {record.number: record for record in studies.trials(self.study)}
        record = records[number]
        if record.state == "running":  # stopped from outside: the sweep is taken up again later
            return
        history = self.sweep.project.training(record.training) / "history.csv"
        tracking.finish_trial(
            self.runs.get(number), self.sweep.project, history, record.state, record.values, record.reason
        )
        self._print(line(record, self.objectives, self.sweep.space, self._best_mark(record, list(records.values()))))
        self._status()

    def _best_mark(self, record: Trial, records: list[Trial]) -> str:
        scope = self.options.scope
        scores = [score(t.values, self.objectives, scope) for t in records if t.state == "complete"]
        if record.state == "complete" and score(record.values, self.objectives, scope) <= min(scores):
            return f"  <- best so far ({scope})"
        return ""

    def _print(self, words: str) -> None:
        log.info(("\r\033[K" if self.live else "") + words)

    def _status(self) -> None:
        """The trials that run, on the last line of a terminal."""
        if self.live:
            budget = self.sweep.about.epochs
            running = "  ".join(f"{number} ({epoch}/{budget})" for number, epoch in sorted(self.epochs.items()))
            ended = studies.number_ended(self.study)
            print(f"\r\033[K{ended}/{self.options.trials} trials ended; running: {running}", end="", flush=True)
