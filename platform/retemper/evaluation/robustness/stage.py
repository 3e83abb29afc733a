"""The suite inside a project: which models, on which structures, and the stage's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from retemper.config.project import FOUNDATION, Project
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import atomic_folder
from retemper.core.output import log
from retemper.data.frames import ENERGY, is_isolated_atom, read_frames
from retemper.evaluation.robustness import metrics, suite
from retemper.evaluation.robustness.context import Context
from retemper.evaluation.robustness.result import METRICS
from retemper.models import calculator, evaluators, heads
from retemper.models.calculator import FORMER, PREFIX
from retemper.models.evaluators import Subject
from retemper.prepare import retention_file
from retemper.records.robustness import Measure, ModelMeasure, ModelRobustness, Robustness
from retemper.records.training import TrainingSummary
from retemper.simulation.engine import CACHE

SETS = ("train", "valid", "test")
SAYING = ("retemper.systems.xtb", *FORMER, "tblite.ase")  # modules of calculators that name their method


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


def foundation_subject(project: Project) -> Subject:
    """The project's foundation, its weights checked."""
    name, device = project.foundation.name, project.settings.finetune.device
    return evaluators.describe(str(project.weights), name=name, head=heads.of_foundation(project), device=device)


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

    heads = [head for head in mace.heads(subject.source) if head != subject.head]
    return tuple(evaluators.describe(subject.source, name=subject.name, head=h, device=subject.device) for h in heads)


def context(project: Project) -> Context:
    """What the project's models are measured on; the subject is the foundation, to be replaced."""
    root, settings, options = project.root, project.settings, project.settings.robustness
    sets = {name: molecules(read_frames(project.structures(name))) for name in SETS}
    all_frames = [atoms for frames in sets.values() for atoms in frames]
    isolated = project.structures("isolated")
    free = read_frames(isolated) if isolated.is_file() and isolated.stat().st_size else []
    foundation = foundation_subject(project)
    source = retention_file.path(project)
    retention = molecules(read_frames(source)) if source else []
    return Context(
        subject=foundation,
        elements=numbers(options.elements) if options.elements else elements_of(all_frames),
        level=options.level,
        frames=sets["test"],
        reference=read_frames(root / options.reference) if options.reference else all_frames,
        retention=[] if retention_file.labelled_by_foundation(retention) else retention,
        free_atoms={int(atoms.numbers[0]): float(atoms.info[ENERGY]) for atoms in free},
        oracle=oracle_subject(options.oracle),
        oracle_level=oracle_level(options.oracle, options.oracle_level),
        target_level=settings.dataset.level_of_theory,
        foundation=foundation,
        figures=root / options.figures if options.figures else None,
        temperature=options.temperature,
        seed=options.seed,
    )


def run(project: Project, name: str) -> Robustness:
    """Measure a strategy's seeds, or "foundation", into ``runs/robustness/<name>``.

    Raises
    ------
    RetemperError
        No such strategy, an unknown metric, a seed that was not trained, a reference that cannot be read.
    """
    project.check_name(name)
    settings, options = project.settings, project.settings.robustness
    metric_names = metrics.resolve(list(options.metrics))
    base = context(project)
    seeds: dict[int, ModelRobustness] = {}
    with atomic_folder(project.robustness(name)) as out:
        for seed, subject in _subjects(project, name, base.subject).items():
            seeds[seed] = suite.evaluate(
                replace(base, subject=subject, other_heads=heads_of(subject)),
                metric_names,
                out / f"seed-{seed}",
                workers=options.workers,
                cache=project.root / CACHE,
                ray=options.ray,
            )
            log.info(suite.table(seeds[seed]))
        robustness = Robustness(
            name=name,
            system=settings.system,
            foundation=settings.foundation,
            level=options.level,
            seeds=seeds,
            summary=summary(list(seeds.values())),
        )
        robustness.write(out / METRICS)
    return robustness


def _subjects(project: Project, name: str, foundation: Subject) -> dict[int, Subject]:
    """Models that are measured, by seed: those of ``robustness.seeds``, else the first; the foundation is seed 0."""
    if name == FOUNDATION:
        return {0: foundation}
    trained = sorted(TrainingSummary.read(project.summary(name)).seeds)
    seeds = project.settings.robustness.seeds
    subjects = {}
    for seed in trained[:1] if seeds is None else seeds:
        if seed not in trained:
            raise unknown(f"seed of {name} (robustness.seeds)", str(seed), map(str, trained))
        label, device = f"{name} seed {seed}", project.settings.finetune.device
        subjects[seed] = evaluators.describe(str(project.model(name, seed)), name=label, device=device)
    return subjects


def summary(seeds: Sequence[ModelRobustness]) -> dict[str, Measure]:
    """By metric: mean and standard deviation over the seeds, and the interval that spans those of the seeds."""
    return {metric: _over_seeds([seed.metrics[metric] for seed in seeds]) for metric in seeds[0].metrics}


def _over_seeds(measures: Sequence[ModelMeasure]) -> Measure:
    first = measures[0]
    values = [measure.value for measure in measures if measure.value is not None]
    if not values:
        return Measure(value=None, reason=first.reason, unit=first.unit)
    lows = [measure.low for measure in measures if measure.low is not None]
    highs = [measure.high for measure in measures if measure.high is not None]
    return Measure(
        value=float(np.mean(values)),
        std=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        low=min(lows) if lows else None,
        high=max(highs) if highs else None,
        score=float(np.mean([measure.score for measure in measures if measure.score is not None])),
        unit=first.unit,
        n=sum(measure.n for measure in measures),
        groups=min(measure.groups for measure in measures),  # the same ones for every seed
        grouped_by=first.grouped_by,
        can_show=first.can_show,
        against=first.against,
    )
