"""The report's first section: which model to use, what it gained, forgot and cost, and what to know before using it."""

from __future__ import annotations

from retemper.evaluation.statistics import FEWEST_GROUPS, Interval
from retemper.records import course
from retemper.records.runs import FOUNDATION, Results
from retemper.records.verdict import Candidate
from retemper.report.comparison import DRIFT, Comparison, number
from retemper.report.findings import in_words, names_of
from retemper.report.page import Block, Bullets, Paragraph, Section

FORCES, RATIO = "target.force_rmse", "forgetting_ratio"


def decision(results: Results, comparison: Comparison) -> Section:
    """The section; empty where nothing was evaluated."""
    choice, name = _choice(results, comparison)
    blocks: list[Block] = [Paragraph(choice, "lead")]
    if name is not None:
        blocks.append(
            Bullets([*_gain(comparison, name), *_forgotten(comparison, name), *_cost(results, comparison, name)])
        )
    known = [*_failed(results), *_courses(results), *_caution(results)]
    if known:
        blocks += [Paragraph("Before you rely on it", "heading"), Bullets(known)]
    return Section("Decision", "What to do", blocks)


def _choice(results: Results, comparison: Comparison) -> tuple[str, str | None]:
    """What to use, in a sentence; and the strategy that the lines after it are about."""
    verdict, best = results.verdict, comparison.best.get(FORCES) or next(iter(comparison.strategies), None)
    if verdict is None:
        reason = "there are no gates" if not results.settings.promotion.gates else "the gates were not judged"
        return f"No model is promoted: {reason} (promotion.gates, `dvc repro promote`).", best
    if verdict.champion is not None:
        candidate, count = verdict.candidates[verdict.champion], len(verdict.gates)
        gates = f"all {count} gates" if count > 1 else "the gate"
        sentence = f"Use **{verdict.model}/{candidate.version}** ({verdict.champion}, seed {candidate.seed}): "
        sentence += f"it passes {gates}"
        passing = sum(other.passed for other in verdict.candidates.values())
        if passing > 1:
            sentence += f", and is the best in {verdict.objective} of the {passing} that do"
        return f'{sentence}. `retemper.load("{verdict.model}@champion")`', verdict.champion
    if verdict.before is not None:
        return f"Keep the champion, {verdict.before}: no candidate of this run passes every gate.", best
    return "No model is fit for use yet: no candidate passes every gate.", best


def _times(ratio: Interval) -> str:
    return f"{number(ratio.value)} [{number(ratio.low, ratio.value)}, {number(ratio.high, ratio.value)}] times"


def _gain(comparison: Comparison, name: str) -> list[str]:
    value = comparison.value(name, FORCES)
    if value is None:
        return []
    text = f"Its force error on the target's test set is {in_words(value, 'meV/Å')}"
    ratio = comparison.ratio(name, FOUNDATION, FORCES)
    text += f", {_times(ratio)} that of the foundation" if ratio is not None else ""
    others = {
        other: v.value for other in comparison.strategies if other != name and (v := comparison.value(other, FORCES))
    }
    if others:
        rival = min(others, key=lambda other: others[other])
        between = comparison.ratio(name, rival, FORCES)
        text += f"; {_times(between)} that of **{rival}**" if between is not None else ""
        if not comparison.worse(name, rival, FORCES) and not comparison.worse(rival, name, FORCES):
            text += ", which is not told apart from it"
    return [f"{text} (paired over groups of structures, 95 %)."]


def _forgotten(comparison: Comparison, name: str) -> list[str]:
    ratio, drift = comparison.value(name, RATIO), comparison.value(name, DRIFT)
    if ratio is not None:
        return [
            f"On held-out pretraining structures its force error is {in_words(ratio, 'times')} the foundation's own."
        ]
    if drift is not None:
        return [f"It drifted {in_words(drift, 'meV/Å')} from the foundation's own forces on structures of its domain."]
    return ["What it forgot was not measured."]


def _cost(results: Results, comparison: Comparison, name: str) -> list[str]:
    seconds, structures = comparison.value(name, "training_cpu_seconds"), results.counts().get("train")
    if seconds is None or structures is None:
        return []
    return [f"It cost {number(seconds.value)} s of CPU time a seed, and {structures} labelled training structures."]


# ------------------------------------------------------------------ what to know


def _failed(results: Results) -> list[str]:
    """The gates that each candidate fails, in a line."""
    if results.verdict is None:
        return []
    failed = [
        f"**{name}** {_gates(candidate)}" for name, candidate in results.verdict.candidates.items() if _gates(candidate)
    ]
    return [f"Gates that fail: {'; '.join(failed)}."] if failed else []


def _gates(candidate: Candidate) -> str:
    return ", ".join(f"{gate.metric} {gate.rule}" for gate in candidate.gates if not gate.passed)


def _courses(results: Results) -> list[str]:
    """Trainings that had not converged, and replay heads that lost accuracy."""
    unfinished, rises = [], []
    for name, seeds in results.trainings.items():
        outcomes = {seed: training.outcome for seed, training in seeds.items() if training.outcome is not None}
        if outcomes and not all(outcome.converged for outcome in outcomes.values()):
            unfinished.append(name)
        replay = [
            rise
            for seed, outcome in outcomes.items()
            if (rise := course.replay_rise(seeds[seed].history, outcome.best_epoch)) is not None
        ]
        if replay:
            rises.append(
                f"**{name}** from {min(low for low, _ in replay):.0f} to {max(high for _, high in replay):.0f}"
            )
    lines = []
    if unfinished:
        which = "every strategy" if len(unfinished) == len(results.trainings) > 1 else names_of(unfinished)
        lines.append(f"Not converged, the best epoch of a seed is its last: {which} (raise finetune.epochs).")
    if rises:
        lines.append(f"The replay head's force error rose, meV/Å: {'; '.join(rises)} (raise replay.weight).")
    return lines


def _caution(results: Results) -> list[str]:
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
    return lines + [
        f"The {part} set holds {groups} independent group(s) of structures: with fewer than {FEWEST_GROUPS} no "
        "strategy is distinguished from another on it, and no gate against the champion can pass."
        for part, groups in results.groups().items()
        if groups < FEWEST_GROUPS
    ]
