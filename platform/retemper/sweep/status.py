"""Sweeps as they stand: what runs, what was found, what mattered; for ``retemper sweep status|show``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retemper.config.project import Project
from retemper.core.errors import unknown
from retemper.records.runs import read_history
from retemper.records.sweep import SweepStudy
from retemper.sweep import optuna_study as studies
from retemper.sweep.choice import Trial, choose, front
from retemper.sweep.space import Space
from retemper.sweep.table import header, line


def _studies(project: Project, strategy: str | None) -> list[tuple[SweepStudy, Path]]:
    """Studies in the cache, where they grow, and those that came with ``runs/sweep`` alone."""
    by_study: dict[str, tuple[SweepStudy, Path]] = {}
    for about, folder in studies.known_studies(project.cache("sweep")) + studies.known_studies(project.runs / "sweep"):
        by_study.setdefault(about.study, (about, folder))
    names = sorted({about.strategy for about, _ in by_study.values()})
    if strategy is not None and strategy not in names:
        raise unknown("sweep", strategy, names)
    return [(about, folder) for about, folder in by_study.values() if strategy in (None, about.strategy)]


def databases(project: Project, strategy: str | None) -> list[tuple[str, str]]:
    """Strategy and address of every study's database, for Optuna's dashboard."""
    return [
        (about.strategy, studies.address(folder))
        for about, folder in _studies(project, strategy)
        if (folder / studies.DATABASE).is_file()
    ]


def status(project: Project, strategy: str | None) -> str:
    """One block a study: how far it is, what runs, the best so far."""
    scope = project.settings.sweep.scope
    blocks = []
    for about, folder in _studies(project, strategy):
        trials = studies.read(folder)
        count = {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "failed")}
        lines = [
            f"{about.strategy}  study {about.study}  {about.epochs} epochs  "
            + "  ".join(f"{number} {state}" for state, number in count.items())
        ]
        for trial in trials:
            history = project.training(trial.training) / "history.csv"
            if trial.state == "running" and trial.training:
                epoch = len(read_history(history)) if history.is_file() else 0
                lines.append(f"  running: trial {trial.number}, epoch {epoch}/{about.epochs}")
        if count["complete"]:
            lines += ["  " + header(about.objectives, _space(about))]
            lines += ["  " + line(_choice(trials, about, scope), about.objectives, _space(about), f"  <- {scope}")]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) or "no sweeps yet: set sweep.trials in params.yaml, then `dvc repro`"


def show(project: Project, strategy: str | None) -> str:
    """All trials, the Pareto front and the importance of each parameter."""
    scope = project.settings.sweep.scope
    blocks = []
    for about, folder in _studies(project, strategy):
        trials, space, objectives = studies.read(folder), _space(about), about.objectives
        best = front(trials, objectives)
        winner = _choice(trials, about, scope) if best else None
        lines = [f"{about.strategy}  study {about.study}", header(objectives, space)]
        for trial in trials:
            mark = "  *" if trial in best else ""
            lines.append(line(trial, objectives, space, mark + (f"  <- {scope}" if trial is winner else "")))
        lines.append(f"* on the Pareto front of {', '.join(objectives)}")
        lines += _importance(trials, space, objectives)
        if (folder / studies.DATABASE).is_file():
            lines.append(f"optuna-dashboard sqlite:///{(folder / studies.DATABASE).relative_to(project.root)}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) or "no sweeps yet: set sweep.trials in params.yaml, then `dvc repro`"


def _choice(trials: Sequence[Trial], about: SweepStudy, scope: str) -> Trial:
    return choose(trials, about.objectives, scope if about.retention else "single-system")


def _importance(trials: Sequence[Trial], space: Space, objectives: Sequence[str]) -> list[str]:
    shares = studies.importance(trials, space, objectives)
    complete = sum(trial.state == "complete" for trial in trials)
    if not shares:
        return [f"importance: {complete} complete trials are too few to say"]
    return [
        f"importance for {name}, from {complete} trials: "
        + ", ".join(f"{path} {100 * share:.0f} %" for path, share in by_path.items())
        for name, by_path in shares.items()
    ]


def _space(about: SweepStudy) -> Space:
    """The space as it was when the study was made; without defaults, which are not needed here."""
    return Space(about.space, {})
