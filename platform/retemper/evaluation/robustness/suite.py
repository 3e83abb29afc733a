"""Measure a model with several metrics: plan all, compute together, analyse, write."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.evaluation.robustness import metrics, result
from retemper.evaluation.robustness.context import Context, NotApplicableError, starts
from retemper.evaluation.robustness.identity import identity
from retemper.evaluation.robustness.result import Found, Info, not_measured
from retemper.models.evaluators import fastest
from retemper.simulation import engine
from retemper.simulation.random_structures import compositions, packing

REFEREES = 20  # structures that symmetrix is compared with torch on


def referees(context: Context) -> list[Atoms]:
    """Structures of all sorts that the metrics will meet: frames, dense and loose cells, clusters, close pairs."""
    rng = np.random.default_rng([context.seed, 11])
    made = starts(context.of_known_elements(context.frames), 5, context.seed)
    for k, composition in enumerate(compositions(context.elements, 8, context.seed)):
        atoms = packing(composition, rng)
        if k % 2:
            atoms.set_cell(atoms.cell.array * 0.85, scale_atoms=True)
        made.append(atoms)
    pairs = list(itertools.combinations_with_replacement(context.elements, 2))
    for k in range(REFEREES - len(made)):
        a, b = pairs[k % len(pairs)]
        made.append(Atoms([a, b], [[0, 0, 0], [0.5 + 0.4 * (k % 5), 0.1, 0.0]]))
    return made


def evaluate(
    context: Context,
    names: Sequence[str],
    folder: Path,
    *,
    workers: int | None = None,
    cache: Path = engine.CACHE,
    ray: bool = False,
    about: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure `context.subject` with the metrics `names` and write metrics.json, tables, plots, failures to `folder`.

    Returns
    -------
    dict
        The content of metrics.json: ``metrics`` by name with value, low, high, unit, score, n, groups,
        reason, identity, details.
    """
    began = time.monotonic()
    subject, decision = fastest(context.subject, referees(context), context.elements, cache)
    context = replace(context, subject=subject)
    print(f"{subject.name}: {context.level}, {', '.join(names)}; back end {decision}", flush=True)
    modules = {name: metrics.load(name) for name in names}
    plans: dict[str, list[engine.Task]] = {}
    results: dict[str, tuple[Info, Found]] = {}
    for name, module in modules.items():
        try:
            plans[name] = module.plan(context)
        except NotApplicableError as reason:
            results[name] = module.INFO, not_measured(str(reason))
    tasks = [task for plan in plans.values() for task in plan]
    computed = iter(engine.run(tasks, workers=workers, cache=cache, ray=ray))
    for name, plan in plans.items():
        own = list(itertools.islice(computed, len(plan)))
        found = modules[name].measure(context, own)
        if context.oracle is not None and any(task.subject == context.oracle for task in plan):
            found = replace(found, against=context.against)
        results[name] = modules[name].INFO, found
    results = {name: results[name] for name in names}
    identities = {name: identity(modules[name], context, plan) for name, plan in plans.items()}
    seconds = time.monotonic() - began
    head = {"name": subject.name, "head": subject.head, "level": context.level, "elements": context.symbols}
    content = result.write(
        folder, results, {**(about or {}), **head, "backend": decision, "seconds": round(seconds, 1)}, identities
    )
    from retemper.evaluation.robustness.figures import draw

    draw(folder, results)
    return content


def table(content: dict[str, Any]) -> str:
    """The metrics of a metrics.json as text."""
    lines = []
    for name, found in content["metrics"].items():
        if found["value"] is None:
            lines.append(f"{name:12s} not measured: {found['reason']}")
            continue
        interval = "" if found["low"] is None else f"[{found['low']:.3g}, {found['high']:.3g}]"
        lines.append(
            f"{name:12s} {found['value']:10.4g} {found['unit']:10s} {interval:20s} "
            f"score {found['score']:.2f}   n {found['n']}{_groups(found)}"
            + (f"   {found['against']}" if found.get("against") else "")
        )
    return "\n".join(lines)


def _groups(found: dict[str, Any]) -> str:
    """How many of n are independent, and what a perfect score on so few would still leave open."""
    if not found["groups"]:
        return ""
    text = f" in {found['groups']} {found['grouped_by']}"
    if found["can_show"] is not None:
        side = "more" if found["can_show"] > 50 else "less"
        text += f"; a perfect score would show no {side} than {found['can_show']:.0f} %"
    return text
