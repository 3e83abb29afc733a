"""``runs/sweep/<strategy>``: the study, its trials as tables, the Pareto front, and the setting to use."""

from __future__ import annotations

import contextlib
import csv
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.config.project import Project
from retemper.config.settings import WEIGHT
from retemper.config.strategies import in_words
from retemper.core.files import atomic_folder, write_json
from retemper.core.output import log
from retemper.finetune import collect
from retemper.records.sweep import ABOUT, BEST, MEASURED, BestSetting, Choice, Provenance
from retemper.sweep import alike
from retemper.sweep.choice import Trial, choose, front, score, target
from retemper.sweep.objectives import HOLES, RETENTION

if TYPE_CHECKING:
    import optuna

    from retemper.sweep.setup import Sweep
    from retemper.sweep.space import Space


def write_defaults(project: Project, strategy: str) -> BestSetting:
    """The result of a sweep without trials: the strategy's own settings."""
    best = BestSetting(strategy=strategy, settings={}, chosen="the strategy's own settings (sweep.trials is 0)")
    with atomic_folder(project.sweep(strategy)) as out:
        best.write(out / BEST)
    return best


def write(sweep: Sweep, study: optuna.Study) -> BestSetting:
    """Write everything, say which setting is used, and return it."""
    from retemper.sweep import optuna_study as studies

    project, space, strategy, options = sweep.project, sweep.space, sweep.strategy, sweep.project.settings.sweep
    trials = [trial for trial in studies.trials(study) if trial.state in ("complete", "pruned", "failed")]
    winner = choose(trials, options.objectives, options.scope)
    best = front(trials, options.objectives)
    comparable = comparable_trials(winner, trials, options.objectives, options.scope, project)
    setting = _best(sweep, winner, trials, comparable)
    with atomic_folder(project.sweep(strategy)) as out:
        with (
            contextlib.closing(sqlite3.connect(sweep.folder / studies.DATABASE)) as source,
            contextlib.closing(sqlite3.connect(out / studies.DATABASE)) as copy,
        ):
            source.backup(copy)
        sweep.about.model_copy(update={"trials": len(trials), "scope": options.scope}).write(out / ABOUT)
        write_json(out / "importance.json", studies.importance(trials, space, options.objectives))
        _table(out / "trials.csv", trials, list(space.ranges))
        _table(out / "front.csv", best, list(space.ranges))
        (out / "trials").mkdir()
        for trial in trials:
            history = project.training(trial.training) / "history.csv"
            if trial.training and history.is_file():
                (out / f"trials/{trial.number}.csv").write_text(history.read_text())
        setting.write(out / BEST)
    log.info(
        f"\n{strategy}: {len(best)} of {len(trials)} trials are on the Pareto front of {', '.join(options.objectives)}"
    )
    log.info(f"{strategy}: trial {winner.number} is used (scope {options.scope}): {_words(winner, space)}")
    if comparable is not None:
        log.info(f"{strategy}: {comparable.sentence()}")
    return setting


def comparable_trials(
    winner: Trial, trials: Sequence[Trial], objectives: Sequence[str], scope: str, project: Project
) -> alike.Alike | None:
    """The trials that may be as good as the winner; `None` where another target than forces is an objective."""
    if target(objectives) != "target":
        return None
    weights = {"target": 1.0} | ({RETENTION: WEIGHT[scope]} if WEIGHT[scope] else {})
    scores = {trial.number: score(trial.values, objectives, scope) for trial in trials if trial.state == "complete"}
    folders = {trial.number: project.training(trial.training) for trial in trials if trial.training}
    other_trials = {
        number: (folders[number], value - scores[winner.number])
        for number, value in scores.items()
        if number != winner.number and number in folders
    }
    return alike.comparable(project.training(winner.training), other_trials, weights)


def _best(sweep: Sweep, winner: Trial, trials: Sequence[Trial], comparable: alike.Alike | None) -> BestSetting:
    about, scope = sweep.about, sweep.project.settings.sweep.scope
    default = next((trial for trial in trials if trial.training == about.default), None)
    model = collect.read_summary(sweep.project.training(winner.training), winner.training)
    holes = " + holes / 100" if HOLES in about.objectives else ""
    return BestSetting(
        strategy=about.strategy,
        settings=winner.params,
        objectives=_round_values(winner.values),
        default=_round_values(default.values) if default else {},
        chosen=Choice(
            scope=scope,
            rule=f"smallest log(target) + {WEIGHT[scope]:g} * log(retention){holes}",
            trial=winner.number,
            of=len(trials),
            alike=list(comparable.trials) if comparable else None,
            compared=comparable.compared if comparable else None,
            groups=comparable.groups if comparable else None,
        ),
        provenance=Provenance(
            study=about.study,
            training=winner.training,
            model_sha256=model.sha256 if model else None,
            seed=about.seed,
            epochs=about.epochs,
            data=about.data,
            retention=about.retention,
        ),
    )


def _round_values(values: dict[str, float]) -> dict[str, float]:
    return {name: round(values[name], 6) for name in MEASURED if name in values}


def _words(winner: Trial, space: Space) -> str:
    changed = {path: value for path, value in winner.params.items() if value != space.defaults[path]}
    if not changed:
        return "the strategy's own settings"
    return ", ".join(f"{path} {in_words(value)}" for path, value in changed.items())


def _table(path: Path, trials: Sequence[Trial], params: Sequence[str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", "epochs", "seconds", *MEASURED, *params, "training", "earlier", "reason"])
        for trial in trials:
            writer.writerow(
                [trial.number, trial.state, trial.epochs, f"{trial.seconds:.1f}"]
                + [f"{trial.values[name]:.8g}" if name in trial.values else "" for name in MEASURED]
                + [
                    ("none" if trial.params[path] is None else trial.params[path]) if path in trial.params else ""
                    for path in params
                ]
                + [trial.training, trial.earlier, trial.reason.replace("\n", " ")]
            )
