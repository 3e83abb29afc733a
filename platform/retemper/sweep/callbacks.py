"""What is seen of a sweep while it runs: one line a trial on the terminal, and the runs in MLflow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import optuna
from ray.tune import Callback

from retemper.config.settings import Settings
from retemper.sweep import optuna_study as studies
from retemper.sweep import tracking
from retemper.sweep.choice import Trial, score
from retemper.sweep.space import Space
from retemper.sweep.table import line


class Watch(Callback):
    """Prints and tracks; the study is written before these calls, so a line is true when it is seen."""

    def __init__(self, study: optuna.Study, space: Space, settings: Settings, sweep_run: str | None, root: Path):
        self.study, self.space, self.settings = study, space, settings
        self.objectives = list(settings.sweep.objectives)
        self.sweep_run, self.root = sweep_run, root
        self.runs: dict[int, str | None] = {}
        self.epochs: dict[int, int] = {}
        self.live = sys.stdout.isatty()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        self.epochs.setdefault(number, 0)
        if number not in self.runs:
            plan, params = trial.config["plan"], trial.config["params"]
            shown = {**plan.strategy, "epochs": plan.epochs}
            self.runs[number] = tracking.start_trial(self.sweep_run, self.root, number, shown, params, plan.key)
        self._status()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "row" in result:
            number = trial.config["number"]
            self.epochs[number] = result["epoch"]
            tracking.log_trial_epoch(self.runs.get(number), result["row"])
            self._status()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended(trial)

    def interrupted(self) -> None:
        """Someone ended the sweep: its run and those of the trials under way are killed, until it goes on."""
        under_way = [self.runs.get(number) for number in sorted(self.epochs)]
        tracking.interrupt([*under_way, self.sweep_run], self.root)

    def _ended(self, trial: Any) -> None:
        number = trial.config["number"]
        self.epochs.pop(number, None)
        found = {one.number: one for one in studies.trials(self.study)}
        one = found[number]
        if one.state == "running":  # stopped from outside: the sweep is taken up again later
            return
        history = self.root / ".cache/training" / one.training / "history.csv"
        tracking.finish_trial(self.runs.get(number), self.root, history, one.state, one.values, one.reason)
        self._print(line(one, self.objectives, self.space, self._best_mark(one, list(found.values()))))
        self._status()

    def _best_mark(self, one: Trial, everyone: list[Trial]) -> str:
        scope = self.settings.sweep.scope
        scores = [score(t.values, self.objectives, scope) for t in everyone if t.state == "complete"]
        if one.state == "complete" and score(one.values, self.objectives, scope) <= min(scores):
            return f"  <- best so far ({scope})"
        return ""

    def _print(self, words: str) -> None:
        print(("\r\033[K" if self.live else "") + words, flush=True)

    def _status(self) -> None:
        """The trials that run, on the last line of a terminal."""
        if self.live:
            budget = self.settings.sweep.epochs or self.settings.finetune.epochs
            running = "  ".join(f"{number} ({done}/{budget})" for number, done in sorted(self.epochs.items()))
            over = studies.ended(self.study)
            print(f"\r\033[K{over}/{self.settings.sweep.trials} trials ended; running: {running}", end="", flush=True)
