"""``runs/sweep/<strategy>``: the study, its trials as tables, the Pareto front, and the setting to use."""

from __future__ import annotations

import contextlib
import csv
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from retemper.config.settings import Settings
from retemper.config.strategies import load
from retemper.config.strict_yaml import read_yaml
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, read_json, write_json
from retemper.sweep import alike
from retemper.sweep.choice import WEIGHT, Trial, choose, front, score, target
from retemper.sweep.objectives import HOLES, RETENTION

if TYPE_CHECKING:
    import optuna

    from retemper.sweep.space import Space

BEST = "best.yaml"
MEASURED = ("target", "target_energy", "target-loss", "retention", "replay_head", "holes")


def folder(root: Path, strategy: str) -> Path:
    """Where a sweep's results are."""
    return root / "runs/sweep" / strategy


def best_settings(root: Path, strategy: str) -> dict[str, Any]:
    """Values by dotted path that the sweep chose; empty without a search.

    Raises
    ------
    RetemperError
        An unknown strategy, or its sweep stage has not run.
    """
    load(strategy, root)
    path = folder(root, strategy) / BEST
    if not path.is_file():
        raise RetemperError(f"{path} does not exist.", fix=f"python -m pipelines.sweep {strategy}, or `dvc repro`")
    return dict(read_yaml(path)["settings"])


def write_defaults(strategy: str, root: Path) -> None:
    """The result of a sweep without trials: the strategy's own settings."""
    with atomic_folder(folder(root, strategy)) as out:
        content = {"strategy": strategy, "settings": {}, "chosen": "the strategy's own settings (sweep.trials is 0)"}
        (out / BEST).write_text(yaml.safe_dump(content, sort_keys=False))


def write(
    settings: Settings, strategy: str, root: Path, study: optuna.Study, space: Space, about: dict[str, Any]
) -> None:
    """Write everything and say which setting is used."""
    from retemper.sweep import optuna_study as studies

    options = settings.sweep
    trials = [one for one in studies.trials(study) if one.state in ("complete", "pruned", "failed")]
    winner = choose(trials, options.objectives, options.scope)
    best = front(trials, options.objectives)
    same = not_told_apart(winner, trials, options.objectives, options.scope, root)
    cache = root / ".cache/sweep" / about["study"]
    with atomic_folder(folder(root, strategy)) as out:
        with (
            contextlib.closing(sqlite3.connect(cache / studies.DATABASE)) as source,
            contextlib.closing(sqlite3.connect(out / studies.DATABASE)) as copy,
        ):
            source.backup(copy)
        write_json(out / "about.json", {**about, "trials": len(trials), "scope": options.scope})
        write_json(out / "importance.json", studies.importance(trials, space, options.objectives))
        _table(out / "trials.csv", trials, list(space.ranges))
        _table(out / "front.csv", best, list(space.ranges))
        (out / "trials").mkdir()
        for one in trials:
            history = root / ".cache/training" / one.training / "history.csv"
            if one.training and history.is_file():
                (out / f"trials/{one.number}.csv").write_text(history.read_text())
        (out / BEST).write_text(
            yaml.safe_dump(_best(winner, trials, options.scope, about, root, same), sort_keys=False)
        )
    print(
        f"\n{strategy}: {len(best)} of {len(trials)} trials are on the Pareto front of {', '.join(options.objectives)}"
    )
    print(f"{strategy}: trial {winner.number} is used (scope {options.scope}): {_words(winner, space)}", flush=True)
    if same is not None:
        print(f"{strategy}: {same.sentence()}", flush=True)


def not_told_apart(
    winner: Trial, trials: Sequence[Trial], objectives: Sequence[str], scope: str, root: Path
) -> alike.Alike | None:
    """The trials that may be as good as the winner; `None` where another target than forces is an objective."""
    if target(objectives) != "target":
        return None
    weights = {"target": 1.0} | ({RETENTION: WEIGHT[scope]} if WEIGHT[scope] else {})
    worth = {one.number: score(one.values, objectives, scope) for one in trials if one.state == "complete"}
    folders = {one.number: root / ".cache/training" / one.training for one in trials if one.training}
    others = {
        number: (folders[number], value - worth[winner.number])
        for number, value in worth.items()
        if number != winner.number and number in folders
    }
    return alike.of(root / ".cache/training" / winner.training, others, weights)


def _best(
    winner: Trial,
    trials: Sequence[Trial],
    scope: str,
    about: dict[str, Any],
    root: Path,
    same: alike.Alike | None,
) -> dict[str, Any]:
    first = next((one for one in trials if one.training == about["default"]), None)
    summary = root / ".cache/training" / winner.training / "summary.json"
    return {
        "strategy": about["strategy"],
        "settings": winner.params,
        "objectives": {name: round(winner.values[name], 6) for name in MEASURED if name in winner.values},
        "default": {name: round(first.values[name], 6) for name in MEASURED if name in first.values} if first else {},
        "chosen": {
            "scope": scope,
            "rule": f"smallest log(target) + {WEIGHT[scope]:g} * log(retention)"
            + (" + holes / 100" if HOLES in about["objectives"] else ""),
            "trial": winner.number,
            "of": len(trials),
        }
        | ({"alike": list(same.trials), "compared": same.compared, "groups": same.groups} if same else {}),
        "provenance": {
            "study": about["study"],
            "training": winner.training,
            "model_sha256": read_json(summary)["sha256"] if summary.is_file() else None,
            "seed": about["seed"],
            "epochs": about["epochs"],
            "data": about["data"],
            "retention": about["retention"],
        },
    }


def _words(winner: Trial, space: Space) -> str:
    changed = {path: value for path, value in winner.params.items() if value != space.defaults[path]}
    if not changed:
        return "the strategy's own settings"
    return ", ".join(f"{path} {text(value)}" for path, value in changed.items())


def text(value: Any) -> str:
    """A setting in few characters."""
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


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
