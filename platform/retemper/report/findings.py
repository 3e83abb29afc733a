"""What the numbers say, in sentences that claim no more than the intervals allow."""

from __future__ import annotations

from collections.abc import Sequence

from retemper.config.metric_names import set_of
from retemper.evaluation.statistics import FEWEST_GROUPS
from retemper.records import course
from retemper.records.evaluation import Estimate
from retemper.records.runs import FOUNDATION, Results
from retemper.report.comparison import DRIFT, Comparison, number


def findings(results: Results, comparison: Comparison) -> list[str]:
    """Sentences on accuracy, scratch, forgetting and the Pareto front; each only where there are numbers for it."""
    return [
        *_accuracy(results, comparison),
        *_forgetting(comparison),
        *_drift(comparison),
        *_front(comparison),
        *_courses(results),
        *_caution(results),
    ]


def names_of(names: Sequence[str]) -> str:
    """``a``, ``a and b`` or ``a, b and c``, each in bold."""
    bold = [f"**{name}**" for name in names]
    return bold[0] if len(bold) == 1 else f"{', '.join(bold[:-1])} and {bold[-1]}"


def _range(value: Estimate, unit: str) -> str:
    text = f"{number(value.value)} {unit}".rstrip()
    if value.low is not None and value.high is not None:
        text += f" (interval {number(value.low, value.value)} to {number(value.high, value.value)})"
    return text


def _accuracy(results: Results, comparison: Comparison) -> list[str]:
    best = comparison.best.get("target.force_rmse")
    if best is None:
        return []
    value = comparison.value(best, "target.force_rmse")
    assert value is not None
    lines = [f"**{best}** has the lowest force RMSE on the target test set: {_range(value, 'meV/Å')}."]
    tied = comparison.tied["target.force_rmse"]
    if tied:
        lines[0] += f" This test set and these seeds do not distinguish {names_of(tied)} from it."
    foundation = comparison.value(FOUNDATION, "target.force_rmse")
    if foundation is not None:
        if not (
            comparison.worse(FOUNDATION, best, "target.force_rmse")
            or comparison.worse(best, FOUNDATION, "target.force_rmse")
        ):
            lines.append(
                f"The untouched foundation has {_range(foundation, 'meV/Å')}: no strategy is shown to be better."
            )
        else:
            word = "less" if value.value < foundation.value else "more"
            factor = foundation.value / value.value if word == "less" else value.value / foundation.value
            lines.append(
                f"The untouched foundation has {_range(foundation, 'meV/Å')}; **{best}** has {number(factor)} times "
                f"{word}."
            )
        worse = [name for name in comparison.strategies if comparison.worse(name, FOUNDATION, "target.force_rmse")]
        if worse:
            lines.append(f"{names_of(worse)} did worse on the target than the foundation that was left as it is.")
    scratch = comparison.value("scratch", "target.force_rmse")
    if scratch is not None and best != "scratch":
        relation = f"{number(scratch.value / value.value)} times that of **{best}**"
        if not comparison.worse("scratch", best, "target.force_rmse"):
            relation = f"not distinguishable from **{best}**"
        lines.append(f"Training from random weights (**scratch**) gives {_range(scratch, 'meV/Å')}, {relation}.")
    return lines


def _forgetting(comparison: Comparison) -> list[str]:
    ratios = {n: v for n in comparison.strategies if (v := comparison.value(n, "forgetting_ratio")) is not None}
    lines = []
    forgetting = {name: value for name, value in ratios.items() if name != "scratch"}  # it had nothing to forget
    if len(forgetting) > 1:
        lowest, highest = (choose(forgetting, key=lambda name: forgetting[name].value) for choose in (min, max))
        tied = [
            name for name in forgetting if name != lowest and not comparison.worse(name, lowest, "forgetting_ratio")
        ]
        text = f"**{lowest}** forgets least: on held-out pretraining structures its force RMSE is "
        text += f"{number(forgetting[lowest].value)} times the foundation's own"
        text += f" (indistinguishable: {names_of(tied)})" if tied else ""
        lines.append(text + f"; **{highest}** forgets most, with {number(forgetting[highest].value)} times.")
    better = []
    for name in comparison.strategies:
        head, target = comparison.value(name, "forgetting_ratio_replay_head"), ratios.get(name)
        kept_more = comparison.worse(name, name, "forgetting_ratio", "forgetting_ratio_replay_head")
        if head is not None and target is not None and kept_more:
            better.append(f"{name} {number(head.value)} against {number(target.value)}")
    if better:
        lines.append(
            f"The replay head keeps more of the foundation's knowledge than the head that learned the target: ratios "
            f"{'; '.join(better)}. Simulations of the target use the target head."
        )
    return lines


def _drift(comparison: Comparison) -> list[str]:
    drifts = {n: v for n in comparison.strategies if n != "scratch" and (v := comparison.value(n, DRIFT)) is not None}
    if not drifts:
        return []
    least, most = (choose(drifts, key=lambda name: drifts[name].value) for choose in (min, max))
    text = (
        f"There are no labels of the pretraining domain. **{least}** stays nearest to the foundation's own predictions "
        f"there ({_range(drifts[least], 'meV/Å')})"
    )
    return [text + (f"; **{most}** drifts farthest ({_range(drifts[most], 'meV/Å')})." if most != least else ".")]


def _front(comparison: Comparison) -> list[str]:
    if len(comparison.front) < 1 or len(comparison.rows) < 2:
        return []
    beaten = [
        name for name in comparison.rows if name not in comparison.front and comparison.value(name, "target.force_rmse")
    ]
    verb = "is" if len(comparison.front) == 1 else "are"
    text = f"{names_of(comparison.front)} {verb} on the Pareto front of target and "
    text += f"{set_of(comparison.forgotten)} force RMSE"
    if beaten:
        text += f"; for {names_of(beaten)} another choice is at least as good in both and better in one"
    return [text + ". The front is drawn through means: neighbours that are not distinguished may change places."]


def _courses(results: Results) -> list[str]:
    """Trainings that had not converged, and replay heads that lost accuracy."""
    lines = []
    for name, seeds in results.trainings.items():
        comments: dict[str, list[int]] = {}
        for seed, training in seeds.items():
            for text in course.comments(training.history, training.outcome) if training.outcome else []:
                comments.setdefault(text, []).append(seed)
        lines += [f"**{name}**, seed {', '.join(map(str, which))}: {text}." for text, which in comments.items()]
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
    for part, groups in results.groups().items():
        if groups < FEWEST_GROUPS:
            lines.append(
                f"The {part} set holds {groups} independent group(s) of structures: with fewer than {FEWEST_GROUPS} no "
                "strategy is distinguished from another on it, and no gate against the champion can pass."
            )
    return lines
