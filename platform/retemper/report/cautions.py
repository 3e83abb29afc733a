"""What speaks against relying on a run's results, a line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from retemper.evaluation.statistics import FEWEST_GROUPS
from retemper.records import course
from retemper.records.runs import FOUNDATION, Results
from retemper.records.verdict import Verdict
from retemper.report.comparison import Comparison
from retemper.report.findings import names_of


def cautions(results: Results, comparison: Comparison) -> list[str]:
    """Whatever is worse than nothing, gates that failed, trainings to go on with, and what is too few to tell."""
    return [*_worse(comparison), *_failed(results.verdict), *_courses(results), *_scarce(results)]


def _worse(comparison: Comparison) -> list[str]:
    worse = [name for name in comparison.strategies if comparison.worse(name, FOUNDATION, "target.force_rmse")]
    if not worse:
        return []
    return [f"Worse on the target than the foundation that was left as it is: {names_of(worse)}."]


def _failed(verdict: Verdict | None) -> list[str]:
    """Gates that failed, by candidate."""
    if verdict is None:
        return []
    failed = []
    for name, candidate in verdict.candidates.items():
        reasons = [f"{gate.metric} ({gate.reason})" for gate in candidate.gates if not gate.passed]
        reasons += [candidate.barred] if candidate.barred else []
        if reasons:
            failed.append(f"**{name}** {', '.join(reasons)}")
    return [f"Gates failed: {'; '.join(failed)}."] if failed else []


def _courses(results: Results) -> list[str]:
    """Trainings that had not converged, and replay heads that lost accuracy."""
    running: dict[str, list[int]] = {}
    risen: dict[str, tuple[float, float]] = {}
    for name, seeds in results.trainings.items():
        finished = {seed: (training, training.outcome) for seed, training in seeds.items() if training.outcome}
        if last := [seed for seed, (_, outcome) in finished.items() if not outcome.converged]:
            running[name] = last
        rises = [course.replay_rise(training.history, outcome.best_epoch) for training, outcome in finished.values()]
        if seen := [rise for rise in rises if rise is not None]:
            risen[name] = max(seen, key=lambda rise: rise[1] / rise[0])
    lines = []
    if running:
        who = _by_seeds(running, results)
        lines.append(f"Not converged, the best epoch is the last (raise `finetune.epochs`): {who}.")
    if risen:
        heads = ", ".join(f"**{name}** from {low:.1f} to {high:.1f}" for name, (low, high) in risen.items())
        lines.append(
            f"The replay head's force error rose (raise `replay.weight`): {heads} meV/Å, the worst seed of each."
        )
    return lines


def _by_seeds(strategies: Mapping[str, Sequence[int]], results: Results) -> str:
    """Strategies with the same seeds together: ``a and b, seeds 1, 2; c, seed 2``."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, seeds in strategies.items():
        groups.setdefault(tuple(seeds), []).append(name)
    parts = []
    for seeds, names in groups.items():
        who = "every strategy" if len(names) > 1 and len(names) == len(results.trainings) else names_of(names)
        parts.append(f"{who}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}")
    return "; ".join(parts)


def _scarce(results: Results) -> list[str]:
    """Few seeds, structures or groups."""
    frames = results.counts().get("test")
    seeds = {len(seeds) for seeds in results.trainings.values()}
    lines = []
    if seeds == {1}:
        lines.append(
            "There is one seed for each strategy: the intervals show the choice of test structures, not the spread of "
            "training. Run more seeds before preferring one strategy to another."
        )
    elif seeds and max(seeds) < 3:
        lines.append("With fewer than three seeds the spread of training is hardly known.")
    if frames is not None and frames < 50:
        lines.append(f"The target test set has only {frames} structures: read small differences with care.")
    few = [f"{groups} in the {part} set" for part, groups in results.groups().items() if groups < FEWEST_GROUPS]
    if few:
        lines.append(
            f"Too few independent groups of structures ({', '.join(few)}): with less than {FEWEST_GROUPS} no strategy "
            "is distinguished from another there, and no gate against the champion can pass."
        )
    return lines
