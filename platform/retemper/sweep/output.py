"""``runs/sweep/<strategy>``: the study, its trials as tables, the Pareto front, and the setting to use."""

from __future__ import annotations

import contextlib
import csv
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retemper.config.project import Project
from retemper.config.strategies import in_words
from retemper.core.files import atomic_folder, write_json
from retemper.core.output import log
from retemper.finetune import collect
from retemper.records.sweep import ABOUT, BEST, MEASURED, BestSetting, Choice, Provenance
from retemper.sweep import alike
from retemper.sweep.choice import WEIGHT, Trial, choose, front, score, target
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
    trials = [one for one in studies.trials(study) if one.state in ("complete", "pruned", "failed")]
    winner = choose(trials, options.objectives, options.scope)
    best = front(trials, options.objectives)
    same = not_told_apart(winner, trials, options.objectives, options.scope, project)
    setting = _best(sweep, winner, trials, same)
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
        for one in trials:
            history = project.training(one.training) / "history.csv"
            if one.training and history.is_file():
                (out / f"trials/{one.number}.csv").write_text(history.read_text())
        setting.write(out / BEST)
    log.info(
        f"\n{strategy}: {len(best)} of {len(trials)} trials are on the Pareto front of {', '.join(options.objectives)}"
    )
    log.info(f"{strategy}: trial {winner.number} is used (scope {options.scope}): {_words(winner, space)}")
    if same is not None:
        log.info(f"{strategy}: {same.sentence()}")
    return setting


def not_told_apart(
    winner: Trial, trials: Sequence[Trial], objectives: Sequence[str], scope: str, project: Project
) -> alike.Alike | None:
    """The trials that may be as good as the winner; `None` where another target than forces is an objective."""
    if target(objectives) != "target":
        return None
    weights = {"target": 1.0} | ({RETENTION: WEIGHT[scope]} if WEIGHT[scope] else {})
    worth = {one.number: score(one.values, objectives, scope) for one in trials if one.state == "complete"}
    folders = {one.number: project.training(one.training) for one in trials if one.training}
    others = {
        number: (folders[number], value - worth[winner.number])
        for number, value in worth.items()
        if number != winner.number and number in folders
    }
    return alike.of(project.training(winner.training), others, weights)


def _best(sweep: Sweep, winner: Trial, trials: Sequence[Trial], same: alike.Alike | None) -> BestSetting:
    about, scope = sweep.about, sweep.project.settings.sweep.scope
    first = next((one for one in trials if one.training == about.default), None)
    kept = collect.kept(sweep.project.training(winner.training), winner.training)
    holes = " + holes / 100" if HOLES in about.objectives else ""
    return BestSetting(
        strategy=about.strategy,
        settings=winner.params,
        objectives=_rounded(winner.values),
        default=_rounded(first.values) if first else {},
        chosen=Choice(
            scope=scope,
            rule=f"smallest log(target) + {WEIGHT[scope]:g} * log(retention){holes}",
            trial=winner.number,
            of=len(trials),
            alike=list(same.trials) if same else None,
            compared=same.compared if same else None,
            groups=same.groups if same else None,
        ),
        provenance=Provenance(
            study=about.study,
            training=winner.training,
            model_sha256=kept.sha256 if kept else None,
            seed=about.seed,
            epochs=about.epochs,
            data=about.data,
            retention=about.retention,
        ),
    )


def _rounded(values: dict[str, float]) -> dict[str, float]:
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
        for one in trials:
            writer.writerow(
                [one.number, one.state, one.epochs, f"{one.seconds:.1f}"]
                + [f"{one.values[name]:.8g}" if name in one.values else "" for name in MEASURED]
                + [
                    ("none" if one.params[path] is None else one.params[path]) if path in one.params else ""
                    for path in params
                ]
                + [one.training, one.earlier, one.reason.replace("\n", " ")]
            )
