"""What to do after this run: who won, by how much, at which cost and what it forgot. The head of the report."""

from __future__ import annotations

from retemper.evaluation.statistics import FEWEST_GROUPS, Interval
from retemper.models.head_names import REPLAY, TARGET
from retemper.records.runs import FOUNDATION, Results
from retemper.records.verdict import Verdict
from retemper.report.comparison import DRIFT, Comparison, number
from retemper.report.findings import in_words

FORCES = "target.force_rmse"


def decision(results: Results, comparison: Comparison) -> list[str]:
    """Who won, by how much, at which cost and what it forgot; empty where no strategy has been measured."""
    lowest = lowest_force_error(comparison)
    if lowest is None:
        return []
    name, sentence = _winner(results, comparison, lowest)
    lines = [_accuracy(comparison, name), _cost(results, comparison, name), _forgotten(comparison, name)]
    return [sentence, *(line for line in lines if line)]


def lowest_force_error(comparison: Comparison, but: str | None = None) -> str | None:
    """The strategy, other than `but`, whose force error on the target is lowest."""
    values = {name: value.value for name in comparison.strategies if (value := comparison.value(name, FORCES))}
    return min((name for name in values if name != but), key=lambda name: values[name], default=None)


def _winner(results: Results, comparison: Comparison, lowest: str) -> tuple[str, str]:
    """The strategy that the numbers are about, and what to do with it."""
    verdict, gates = results.verdict, results.settings.promotion.gates
    best = f"**{lowest}** has the lowest force error on the target test set"
    if not gates:
        return lowest, f"{best}. No gates are set (`promotion.gates`): nothing becomes champion by itself."
    if verdict is None:
        return lowest, f"{best}. The gates have not judged it: `dvc repro promote`."
    if verdict.champion:
        return verdict.champion, _champion(verdict, verdict.champion)
    before = verdict.champion_before
    if before is not None:
        trained = results.trainings.get(before.strategy, {}).values()
        here = any(t.outcome and t.outcome.sha256 == before.sha256 for t in trained)
        reason = verdict.obstacle or "no other candidate passes every gate"
        name = before.strategy if here and before.strategy in comparison.rows else lowest
        return name, f"The champion stays {verdict.before}: {reason}. The numbers here are those of **{name}**."
    first = next((name for name in verdict.candidates if name in comparison.rows), lowest)
    return first, f"**There is no champion**: no candidate passes every gate. Nearest to it is **{first}**."


def _champion(verdict: Verdict, name: str) -> str:
    candidate = verdict.candidates[name]
    count = len(candidate.gates)
    passes = "passes its gate" if count == 1 else f"passes all {count} gates"
    text = (
        f"Use **{name}**: `{verdict.model}/{candidate.version}` (seed {candidate.seed}) {passes} and is champion, "
        f'`retemper.load("{verdict.model}@champion")`.'
    )
    if verdict.challenger:
        version = verdict.candidates[verdict.challenger].version
        text += f" Challenger: **{verdict.challenger}**, `{verdict.model}/{version}`."
    return text


# ------------------------------------------------------------------ its numbers


def _accuracy(comparison: Comparison, name: str) -> str | None:
    value = comparison.value(name, FORCES)
    if value is None:
        return None
    others = []
    foundation, rival = comparison.value(FOUNDATION, FORCES), lowest_force_error(comparison, but=name)
    if foundation is not None:
        whom = f"the untouched foundation's {number(foundation.value)}"
        others.append(_against(comparison.ratio(name, FOUNDATION, FORCES), whom))
    if rival is not None and (other := comparison.value(rival, FORCES)) is not None:
        which = "next best" if other.value >= value.value else "lowest of all"
        whom = f"the {which}, **{rival}** with {number(other.value)}"
        others.append(_against(comparison.ratio(name, rival, FORCES), whom))
    text = f"Target forces: {in_words(value, 'meV/Å')}"
    return f"{text}: {', and '.join(others)}." if others else f"{text}."


def _against(ratio: Interval | None, whom: str) -> str:
    """A paired ratio to an error, in per cent."""
    if ratio is None:
        return f"not measured on the frames of {whom}"
    change, low, high = (100 * (bound - 1) for bound in (ratio.value, ratio.low, ratio.high))
    text = f"{number(abs(change))} % {'more' if change > 0 else 'less'} than {whom}"
    if ratio.groups < FEWEST_GROUPS:
        return f"{text} (not told apart by {ratio.groups} groups of structures)"
    told = "" if low > 0 or high < 0 else ", not told apart"
    return f"{text} (paired: {low:+.1f} to {high:+.1f} %{told})"


def _cost(results: Results, comparison: Comparison, name: str) -> str | None:
    cost = comparison.value(name, "training_cpu_seconds")
    if cost is None:
        return None
    first = next(iter(results.trainings[name].values()))
    frames = first.effective.ran.frames if first.effective else {}
    text = f"Cost: {_time(cost.value)} of CPU time a seed"
    if TARGET in frames:
        text += f" for {frames[TARGET][0]:,} structures of the target"
        text += f" and {frames[REPLAY][0]:,} replayed" if REPLAY in frames else ""
    trainings = [t.outcome for seeds in results.trainings.values() for t in seeds.values() if t.outcome]
    if len(trainings) > 1:
        total = _time(sum(outcome.cpu_seconds for outcome in trainings))
        text += f"; the {len(trainings)} trainings of this comparison took {total}"
    return text + "."


def _time(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds)} s"


def _forgotten(comparison: Comparison, name: str) -> str:
    drift = comparison.forgotten == DRIFT
    key, unit = (DRIFT, "meV/Å") if drift else ("forgetting_ratio", "")
    value = comparison.value(name, key)
    if value is None:
        return "What it forgot was not measured."
    size = in_words(value, unit)
    text = f"Forgotten: its error on held-out pretraining structures is {size} times the foundation's"
    if drift:
        text = f"Drift: {size} from the foundation's own predictions of its domain, which has no labels"
    others = {n: v for n in comparison.strategies if n != name and (v := comparison.value(n, key)) is not None}
    least = min(others, key=lambda other: others[other].value, default=None)
    if least is None or others[least].value >= value.value:
        return f"{text}{', the least of all' if least else ''}."
    forces = comparison.value(least, FORCES)
    price = f", at {number(forces.value)} meV/Å on the target" if forces else ""
    return f"{text}; least has **{least}** with {number(others[least].value)}{price}."
