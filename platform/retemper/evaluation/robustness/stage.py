"""The suite inside a project: which models, on which structures, and the stage's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from retemper.config import foundations
from retemper.config.settings import Settings
from retemper.core import weight_files
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import atomic_folder, write_json
from retemper.data.frames import ENERGY, is_isolated_atom, read_frames
from retemper.evaluation.robustness import metrics, suite
from retemper.evaluation.robustness.context import Context
from retemper.models import calculator, evaluators
from retemper.models.calculator import PREFIX
from retemper.models.evaluators import Subject
from retemper.records.runs import FOUNDATION
from retemper.records.training import TrainingSummary
from retemper.simulation.engine import CACHE

SETS = ("train", "valid", "test")
SAYING = ("retemper.systems.xtb", "retemper.xtb", "tblite.ase")  # modules of calculators that name their method
FOLDER = Path("runs/robustness")


def numbers(symbols: Sequence[str]) -> tuple[int, ...]:
    """Atomic numbers of chemical symbols, sorted."""
    for symbol in symbols:
        if symbol not in atomic_numbers:
            raise unknown("element", symbol, [s for s in atomic_numbers if s != "X"])
    return tuple(sorted({atomic_numbers[symbol] for symbol in symbols}))


def elements_of(frames: Sequence[Atoms]) -> tuple[int, ...]:
    """Atomic numbers that occur in `frames`, sorted."""
    return tuple(np.unique(np.concatenate([atoms.numbers for atoms in frames])).tolist()) if frames else ()


def molecules(frames: Sequence[Atoms]) -> list[Atoms]:
    """`frames` without free atoms."""
    return [atoms for atoms in frames if not is_isolated_atom(atoms)]


def foundation_subject(settings: Settings, root: Path) -> Subject:
    """The project's foundation, its weights checked."""
    entry = foundations.find(settings.foundation, root)
    path = foundations.weights(entry, root)
    return evaluators.describe(str(path), name=entry.name, head=entry.head, device=settings.finetune.device)


def oracle_subject(spec: str | None) -> Subject | None:
    """The reference method of a setting."""
    if spec is None:
        return None
    if not spec.startswith(PREFIX):
        raise RetemperError(
            f"The oracle {spec!r} is no calculator.", expected="ase:package.module:Class(keyword=value)"
        )
    return evaluators.describe(spec, name="oracle")


def oracle_level(spec: str | None, declared: str | None) -> str | None:
    """Level of theory of the oracle: as declared, or as tblite's calculators say; `None` where none does."""
    if declared is not None or spec is None:
        return declared
    if not spec.startswith(tuple(f"{PREFIX}{module}:" for module in SAYING)):
        return None
    return str(calculator.create(spec.removeprefix(PREFIX)).parameters["method"])


def heads_of(subject: Subject) -> tuple[Subject, ...]:
    """The same model with each of its other heads."""
    if subject.kind != "mace":
        return ()
    from retemper.models import mace

    others = [head for head in mace.heads(subject.source) if head != subject.head]
    return tuple(evaluators.describe(subject.source, name=subject.name, head=h, device=subject.device) for h in others)


def context(settings: Settings, root: Path) -> Context:
    """What the project's models are measured on; the subject is the foundation, to be replaced."""
    own = settings.robustness
    sets = {name: molecules(read_frames(root / f"runs/dataset/{name}.extxyz")) for name in SETS}
    every = [atoms for frames in sets.values() for atoms in frames]
    isolated = root / "runs/dataset/isolated.extxyz"
    free = read_frames(isolated) if isolated.is_file() and isolated.stat().st_size else []
    foundation = foundation_subject(settings, root)
    source = settings.evaluate.retention or foundations.find(settings.foundation, root).retention
    return Context(
        subject=foundation,
        elements=numbers(own.elements) if own.elements else elements_of(every),
        level=own.level,
        frames=sets["test"],
        reference=read_frames(root / own.reference) if own.reference else every,
        retention=molecules(read_frames(root / source)) if source else [],
        free_atoms={int(atoms.numbers[0]): float(atoms.info[ENERGY]) for atoms in free},
        oracle=oracle_subject(own.oracle),
        oracle_level=oracle_level(own.oracle, own.oracle_level),
        target_level=settings.dataset.level_of_theory,
        foundation=foundation,
        figures=root / own.figures if own.figures else None,
        temperature=own.temperature,
        seed=own.seed,
    )


def run(name: str, settings: Settings, root: Path) -> dict[str, Any]:
    """Measure a strategy's seeds, or "foundation", into ``runs/robustness/<name>``; returns its metrics.json.

    Raises
    ------
    RetemperError
        An unknown metric, a seed that was not trained, a reference that cannot be read.
    """
    own = settings.robustness
    names = metrics.chosen(list(own.metrics))
    here = context(settings, root)
    folder = root / "runs/finetune" / name
    if name == FOUNDATION:
        models = {"0": Path(here.subject.source)}
    else:
        trained = list(map(str, sorted(TrainingSummary.read(folder / "summary.json").seeds)))
        asked = [str(seed) for seed in own.seeds] if own.seeds is not None else trained[:1]
        for seed in asked:
            if seed not in trained:
                raise unknown(f"seed of {name} (robustness.seeds)", seed, trained)
        models = {seed: folder / f"seed-{seed}" / weight_files.NAME for seed in asked}
    seeds: dict[str, Any] = {}
    with atomic_folder(root / FOLDER / name) as out:
        for seed, model in models.items():
            subject = here.subject
            if name != FOUNDATION:
                label = f"{name} seed {seed}"
                subject = evaluators.describe(str(model), name=label, device=settings.finetune.device)
            there = replace(here, subject=subject, other_heads=heads_of(subject))
            seeds[seed] = suite.evaluate(
                there, names, out / f"seed-{seed}", workers=own.workers, cache=root / CACHE, ray=own.ray
            )
            print(suite.table(seeds[seed]), flush=True)
        about = {"name": name, "system": settings.system, "foundation": settings.foundation, "level": own.level}
        content = {**about, "seeds": seeds, "summary": summary(seeds)}
        write_json(out / "metrics.json", content)
    return content


def summary(seeds: dict[str, Any]) -> dict[str, Any]:
    """By metric: mean and standard deviation over the seeds, and the interval that spans those of the seeds."""
    found: dict[str, Any] = {}
    for metric in next(iter(seeds.values()))["metrics"]:
        parts = [seed["metrics"][metric] for seed in seeds.values()]
        values = [part["value"] for part in parts if part["value"] is not None]
        if not values:
            found[metric] = {"mean": None, "reason": parts[0]["reason"], "unit": parts[0]["unit"]}
            continue
        lows, highs = ([part[side] for part in parts if part[side] is not None] for side in ("low", "high"))
        found[metric] = {
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "low": min(lows) if lows else None,
            "high": max(highs) if highs else None,
            "score": float(np.mean([part["score"] for part in parts if part["score"] is not None])),
            "unit": parts[0]["unit"],
            "n": sum(part["n"] for part in parts),
            "groups": min(part["groups"] for part in parts),  # the same ones for every seed
            "grouped_by": parts[0]["grouped_by"],
            "can_show": parts[0]["can_show"],
            "against": parts[0].get("against"),
        }
    return found
