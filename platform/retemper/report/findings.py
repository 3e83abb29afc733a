"""What the numbers of all strategies say, in sentences that claim no more than the intervals allow."""

from __future__ import annotations

from collections.abc import Sequence

from retemper.config.metric_names import set_of
from retemper.records.evaluation import Estimate
from retemper.report.comparison import DRIFT, Comparison, number, untold


def findings(comparison: Comparison) -> list[str]:
    """Sentences on the target, scratch, forgetting and the Pareto front; each only where there are numbers for it."""
    return [*_accuracy(comparison), *_forgetting(comparison), *_drift(comparison), *_front(comparison)]


def names_of(names: Sequence[str]) -> str:
    """``a``, ``a and b`` or ``a, b and c``, each in bold."""
    bold = [f"**{name}**" for name in names]
    return bold[0] if len(bold) == 1 else f"{', '.join(bold[:-1])} and {bold[-1]}"


def in_words(value: Estimate, unit: str) -> str:
    """A value with its unit and interval."""
    text = f"{number(value.value)} {unit}".rstrip()
    if untold(value):
        text += " (too few groups for an interval)"
    elif value.low is not None and value.high is not None:
        text += f" (interval {number(value.low, value.value)} to {number(value.high, value.value)})"
    return text


def _accuracy(comparison: Comparison) -> list[str]:
    best = comparison.best.get("target.force_rmse")
    value = comparison.value(best, "target.force_rmse") if best else None
    if best is None or value is None:
        return []
    lines = [f"**{best}** has the lowest force RMSE on the target test set."]
    tied = comparison.tied["target.force_rmse"]
    if tied:
        lines[0] += f" This test set and these seeds do not distinguish {names_of(tied)} from it."
    scratch = comparison.value("scratch", "target.force_rmse")
    if scratch is not None and best != "scratch":
        relation = f"{number(scratch.value / value.value)} times that of **{best}**"
        if not comparison.worse("scratch", best, "target.force_rmse"):
            relation = f"not distinguishable from **{best}**"
        lines.append(f"Training from random weights (**scratch**) gives {in_words(scratch, 'meV/Å')}, {relation}.")
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
        f"there ({in_words(drifts[least], 'meV/Å')})"
    )
    return [text + (f"; **{most}** drifts farthest ({in_words(drifts[most], 'meV/Å')})." if most != least else ".")]


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
