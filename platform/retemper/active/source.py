"""What a round starts from: the models that explore, and the structures they know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.config.project import Project
from retemper.core import weight_files
from retemper.core.errors import RetemperError, unknown
from retemper.data import rounds
from retemper.data.frames import is_isolated_atom, labels_hash, read_frames
from retemper.models import mace, predict
from retemper.records.round import Hashes, Plan
from retemper.records.training import TrainingSummary
from retemper.records.verdict import Verdict


@dataclass(frozen=True)
class Source:
    """Models of one strategy by seed, and the labelled sets. Nothing is explored or learnt from the test set."""

    strategy: str
    champion: bool  # whether the strategy is that of the champion
    models: dict[int, Path]
    lead_seed: int
    train: list[Atoms]
    valid: list[Atoms]
    device: str

    @property
    def lead(self) -> Path:
        """Weights of the model that explores."""
        return self.models[self.lead_seed]

    @property
    def data(self) -> Hashes:
        """Hashes of the sets."""
        return Hashes(train=labels_hash(self.train), valid=labels_hash(self.valid))

    @property
    def head(self) -> str:
        """Of the target."""
        return mace.pick_head(self.lead)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers of the training set."""
        return tuple(np.unique(np.concatenate([atoms.numbers for atoms in self.train])).tolist())


def from_project(project: Project) -> Source:
    """The models that the last `dvc repro` left: of the champion's strategy, else of the one with the best objective.

    Raises
    ------
    RetemperError
        Nothing is trained yet, or ``acquire.strategy`` is not among the strategies.
    """
    strategy, champion, preferred = _strategy(project)
    summary = project.summary(strategy)
    if not summary.is_file():
        raise RetemperError(f"No model of {strategy} is trained yet.", fix="dvc repro")
    outcomes = TrainingSummary.read(summary).seeds
    models = {seed: project.model(strategy, seed) for seed in sorted(outcomes)}
    lead = preferred if preferred in models else min(outcomes, key=lambda seed: outcomes[seed].valid_loss)
    return _source(project, strategy, champion, models, lead)


def from_plan(project: Project, plan: Plan, work: Path) -> Source:
    """The same for a round that has begun: its own copies of the weights."""
    models = {seed: work / f"seed-{seed}{weight_files.SUFFIX}" for seed in plan.models}
    source = _source(project, plan.strategy, plan.champion, models, plan.lead)
    origin = f"{rounds.FOLDER}/{rounds.name(plan.round)}:"  # where the round is made anew, its labels are there already
    source = replace(source, train=_without(origin, source.train), valid=_without(origin, source.valid))
    if source.data != plan.data:
        raise RetemperError(
            f"runs/dataset changed since round {plan.round} began.",
            fix=f"delete {work.relative_to(project.root)} to begin the round anew (labels are kept)",
        )
    return source


def _without(origin: str, frames: Sequence[Atoms]) -> list[Atoms]:
    return [atoms for atoms in frames if not str(atoms.info.get("source", "")).startswith(origin)]


def _source(project: Project, strategy: str, champion: bool, models: dict[int, Path], lead: int) -> Source:
    train, valid = (
        [atoms for atoms in read_frames(project.structures(name)) if not is_isolated_atom(atoms)]
        for name in ("train", "valid")
    )
    return Source(strategy, champion, models, lead, train, valid, project.settings.finetune.device)


def _strategy(project: Project) -> tuple[str, bool, int | None]:
    """Strategy, whether it is that of the champion, who may stand from before, and the seed that stands for it."""
    settings = project.settings
    verdict = Verdict.read(project.verdict) if project.verdict.is_file() else None
    candidates = {} if verdict is None else {s: c for s, c in verdict.candidates.items() if s in settings.strategies}
    previous = None if verdict is None else verdict.champion_before
    champion = verdict.champion if verdict is not None else None
    if champion is None and previous is not None:
        champion = previous.strategy
    name = settings.acquire.strategy
    if name is not None:
        if name not in settings.strategies:
            raise unknown("strategy (acquire.strategy)", name, settings.strategies)
        return name, champion == name, candidates[name].seed if name in candidates else None
    if champion in settings.strategies and project.summary(champion).is_file():
        holder = candidates.get(champion, previous)
        return champion, True, None if holder is None else holder.seed
    objectives = {strategy: c.objective for strategy, c in candidates.items() if c.objective is not None}
    if objectives:
        best = min(objectives, key=lambda strategy: objectives[strategy])
        return best, False, candidates[best].seed
    return settings.strategies[0], False, None


def forces(ensemble: Source, frames: Sequence[Atoms]) -> list[np.ndarray]:
    """Forces of the leading model, n times [n_atoms, 3], eV/A."""
    return predict.predict(ensemble.lead, frames, head=ensemble.head, device=ensemble.device).forces
