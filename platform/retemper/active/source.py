"""What a round starts from: the models that explore, and the structures they know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.config.settings import Settings
from retemper.core import weight_files
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import read_json
from retemper.data import rounds
from retemper.data.frames import is_isolated_atom, labels_hash, read_frames
from retemper.models import mace, predict
from retemper.records.runs import finite
from retemper.records.training import TrainingSummary


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
    def data(self) -> dict[str, str]:
        """Hashes of the sets."""
        return {"train": labels_hash(self.train), "valid": labels_hash(self.valid)}

    @property
    def head(self) -> str:
        """Of the target."""
        return mace.pick_head(self.lead)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers of the training set."""
        return tuple(np.unique(np.concatenate([atoms.numbers for atoms in self.train])).tolist())


def of_project(settings: Settings, root: Path) -> Source:
    """The models that the last `dvc repro` left: of the champion's strategy, else of the one with the best objective.

    Raises
    ------
    RetemperError
        Nothing is trained yet, or ``acquire.strategy`` is not among the strategies.
    """
    strategy, champion, seed = _strategy(settings, root)
    folder = root / "runs/finetune" / strategy
    if not (folder / "summary.json").is_file():
        raise RetemperError(f"No model of {strategy} is trained yet.", fix="dvc repro")
    outcomes = TrainingSummary.read(folder / "summary.json").seeds
    models = {s: folder / f"seed-{s}" / weight_files.NAME for s in sorted(outcomes)}
    lead = seed if seed in models else min(outcomes, key=lambda s: outcomes[s].valid_loss)
    return _source(settings, root, strategy, champion, models, lead)


def of_plan(settings: Settings, root: Path, plan: dict[str, Any], work: Path) -> Source:
    """The same for a round that has begun: its own copies of the weights."""
    models = {int(seed): work / f"seed-{seed}{weight_files.SUFFIX}" for seed in plan["models"]}
    found = _source(settings, root, plan["strategy"], plan["champion"], models, plan["lead"])
    own = f"{rounds.FOLDER}/{rounds.name(plan['round'])}:"  # where the round is made anew, its labels are there already
    found = replace(found, train=_without(own, found.train), valid=_without(own, found.valid))
    if found.data != plan["data"]:
        raise RetemperError(
            f"runs/dataset changed since round {plan['round']} began.",
            fix=f"delete {work.relative_to(root)} to begin the round anew (labels are kept)",
        )
    return found


def _without(origin: str, frames: Sequence[Atoms]) -> list[Atoms]:
    return [atoms for atoms in frames if not str(atoms.info.get("source", "")).startswith(origin)]


def _source(
    settings: Settings, root: Path, strategy: str, champion: bool, models: dict[int, Path], lead: int
) -> Source:
    sets = [
        [atoms for atoms in read_frames(root / f"runs/dataset/{name}.extxyz") if not is_isolated_atom(atoms)]
        for name in ("train", "valid")
    ]
    return Source(strategy, champion, models, lead, sets[0], sets[1], settings.finetune.device)


def _strategy(settings: Settings, root: Path) -> tuple[str, bool, int | None]:
    """Strategy, whether it is that of the champion, who may stand from before, and the seed that stands for it."""
    path = root / "runs/promote/verdict.json"
    verdict = read_json(path) if path.is_file() else {"champion": None, "candidates": {}}
    judged = {name: one for name, one in verdict["candidates"].items() if name in settings.strategies}
    before = verdict.get("champion_before") or {"strategy": None}
    champion = verdict["champion"] or before["strategy"]
    asked = settings.acquire.strategy
    if asked is not None:
        if asked not in settings.strategies:
            raise unknown("strategy (acquire.strategy)", asked, settings.strategies)
        return asked, champion == asked, judged.get(asked, {}).get("seed")
    if champion in settings.strategies and (root / "runs/finetune" / champion / "summary.json").is_file():
        return champion, True, judged.get(champion, before)["seed"]
    measured = {name: one for name, one in judged.items() if finite(one["objective"]) is not None}
    if measured:
        best = min(measured, key=lambda name: float(measured[name]["objective"]))
        return best, False, measured[best]["seed"]
    return settings.strategies[0], False, None


def forces(here: Source, frames: Sequence[Atoms]) -> list[np.ndarray]:
    """Forces of the leading model, n times [n_atoms, 3], eV/A."""
    return predict.predict(here.lead, frames, head=here.head, device=here.device).forces
