"""Measure a model with several metrics: plan all, compute together, analyse, write."""

from __future__ import annotations

import itertools
import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.core.output import log
from retemper.evaluation.robustness import metrics, result
from retemper.evaluation.robustness.context import Context, NotApplicableError, Plan, starts
from retemper.evaluation.robustness.identity import identity
from retemper.evaluation.robustness.result import Result, not_measured
from retemper.models.evaluators import fastest
from retemper.records.robustness import Measure, ModelRobustness
from retemper.simulation import engine
from retemper.simulation.random_structures import compositions, packing

REFEREES = 20  # structures that symmetrix is compared with torch on


def referees(context: Context) -> list[Atoms]:
    """Structures of all sorts that the metrics will meet: frames, dense and loose cells, clusters, close pairs."""
    rng = np.random.default_rng([context.seed, 11])
    structures = starts(context.of_known_elements(context.frames), 5, context.seed)
    for k, composition in enumerate(compositions(context.elements, 8, context.seed)):
        atoms = packing(composition, rng)
        if k % 2:
            atoms.set_cell(atoms.cell.array * 0.85, scale_atoms=True)
        structures.append(atoms)
    pairs = list(itertools.combinations_with_replacement(context.elements, 2))
    for k in range(REFEREES - len(structures)):
        a, b = pairs[k % len(pairs)]
        structures.append(Atoms([a, b], [[0, 0, 0], [0.5 + 0.4 * (k % 5), 0.1, 0.0]]))
    return structures


def compute(
    plan: Plan, *, workers: int | None = None, cache: Path = engine.CACHE, ray: bool = False
) -> dict[Hashable, Any]:
    """The results of a plan's tasks under their keys."""
    results = engine.run(list(plan.values()), workers=workers, cache=cache, ray=ray)
    return dict(zip(plan, results, strict=True))


def evaluate(
    context: Context,
    names: Sequence[str],
    folder: Path,
    *,
    workers: int | None = None,
    cache: Path = engine.CACHE,
    ray: bool = False,
) -> ModelRobustness:
    """Measure `context.subject` with the metrics `names`; metrics.json, tables, plots and failures go to `folder`."""
    start = time.monotonic()
    subject, decision = fastest(context.subject, referees(context), context.elements, cache)
    context = replace(context, subject=subject)
    log.info(f"{subject.name}: {context.level}, {', '.join(names)}; back end {decision}")
    modules = {name: metrics.load(name) for name in names}
    plans: dict[str, Plan] = {}
    results: dict[str, Result] = {}
    for name, module in modules.items():
        try:
            plans[name] = module.plan(context)
        except NotApplicableError as reason:
            results[name] = not_measured(str(reason))
    all_tasks: Plan = {(name, key): task for name, plan in plans.items() for key, task in plan.items()}
    computed = compute(all_tasks, workers=workers, cache=cache, ray=ray)
    for name, plan in plans.items():
        results[name] = modules[name].measure(context, {key: computed[name, key] for key in plan})
        if context.oracle is not None and any(task.subject == context.oracle for task in plan.values()):
            results[name] = replace(results[name], against=context.against)
    identities = {name: identity(modules[name], context, list(plan.values())) for name, plan in plans.items()}
    robustness = ModelRobustness(
        name=subject.name,
        head=subject.head,
        level=context.level,
        elements=context.symbols,
        backend=decision,
        seconds=round(time.monotonic() - start, 1),
        metrics={name: results[name].measure(modules[name].INFO, identities.get(name, {})) for name in names},
    )
    result.write(folder, robustness, results)
    from retemper.evaluation.robustness.figures import draw

    draw(folder, {name: modules[name].INFO.title for name in names}, results)
    return robustness


def table(robustness: ModelRobustness) -> str:
    """The metrics of a model as text."""
    lines = []
    for name, measure in robustness.metrics.items():
        if measure.value is None or measure.score is None:
            lines.append(f"{name:12s} not measured: {measure.reason}")
            continue
        interval = "" if measure.low is None else f"[{measure.low:.3g}, {measure.high:.3g}]"
        lines.append(
            f"{name:12s} {measure.value:10.4g} {measure.unit:10s} {interval:20s} "
            f"score {measure.score:.2f}   n {measure.n}{_groups(measure)}"
            + (f"   {measure.against}" if measure.against else "")
        )
    return "\n".join(lines)


def _groups(measure: Measure) -> str:
    """How many of n are independent, and what a perfect score on so few would still leave open."""
    if not measure.groups:
        return ""
    text = f" in {measure.groups} {measure.grouped_by}"
    if measure.can_show is not None:
        side = "more" if measure.can_show > 50 else "less"
        text += f"; a perfect score would show no {side} than {measure.can_show:.0f} %"
    return text
