"""Foundation, E0 method, strategy and first settings for some data and a scope: what, why, how sure, on which runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from retemper.advise import evidence
from retemper.advise.facts import Facts
from retemper.study import contrast
from retemper.study.spec import OWN, PARAMS
from retemper.study.table import VALUE, finished
from retemper.sweep.front import WEIGHT

if TYPE_CHECKING:
    import pandas as pd

Sure = Literal["sure", "likely", "guess"]
CLOSE = math.log(1.05)  # strategies within 5 % of each other in score are as good as each other
FAR = 0.5  # of the structures beyond the pretraining distribution: the foundation knows little of them
# Without runs: arXiv:2606.12704, abstract. Replay with pseudolabels needs no labels of the pretraining set.
UNTRIED = "no runs vary its settings: its own (the paper's); `sweep: {trials: 16}` searches for better ones"
PAPER = {"single-system": "naive", "family": "pseudolabel-replay", "broad": "pseudolabel-replay"}


@dataclass(frozen=True)
class Choice:
    """One recommendation."""

    what: str  # foundation, e0s, strategy, settings
    value: str
    sure: Sure
    why: tuple[str, ...]
    runs: int = 0  # that it rests on


@dataclass(frozen=True)
class Advice:
    """Everything that is recommended, what stands in the way, and where the runs at hand say nothing."""

    facts: Facts
    scope: str
    choices: tuple[Choice, ...]
    obstacles: tuple[str, ...]
    extrapolations: tuple[str, ...]
    settings: dict[str, Any]  # strategy's settings by dotted path

    def value(self, what: str) -> str:
        """The recommendation for foundation, e0s, strategy."""
        return next(choice.value for choice in self.choices if choice.what == what)


def advise(facts: Facts, scope: str, table: pd.DataFrame | None) -> Advice:
    """The recommendations for data and scope from the tables of studies, or from the paper where there are none."""
    foundation = _foundation(facts, scope, table)
    strategy = _strategy(facts, scope, table)
    settings, chosen = _settings(strategy.value, facts, scope, table)
    beyond = _extrapolations(facts, foundation.value, strategy.value, scope, table)
    if any(not one.startswith("system: ") for one in beyond):  # a new system is what the check by leaving out is for
        strategy, chosen = (replace(one, sure="guess") for one in (strategy, chosen))
    choices = (foundation, _e0s(facts, table), strategy, chosen)
    return Advice(facts, scope, choices, tuple(_obstacles(facts, foundation.value)), tuple(beyond), settings)


def _foundation(facts: Facts, scope: str, table: pd.DataFrame | None) -> Choice:
    """The one that knows the elements and, of several, that did best in runs, or is nearest."""
    able = sorted(facts.distances, key=lambda name: (facts.distances[name].beyond, facts.distances[name].median))
    why = [f"{name} lacks {' '.join(missing)}" for name, missing in facts.lacking.items()]
    for name in able:
        one = facts.distances[name]
        why.append(
            f"{name} knows all elements; {100 * one.beyond:.0f} % of {one.structures} structures are farther from its "
            f"pretraining set than 95 % of its own held-out ones (median distance {one.median:.2g} times theirs)"
        )
    ranked = evidence.ranking(table, "foundation", scope, facts.train) if table is not None else None
    tried = [name for name in ranked.levels if name in able] if ranked else []
    if ranked and len(tried) > 1:
        best, second = tried[0], tried[1]
        lead = ranked.worse[ranked.levels.index(second)] - ranked.worse[ranked.levels.index(best)]
        why.append(
            f"in {ranked.runs} runs on {ranked.systems} systems {best} scores {evidence.percent(lead)} better than "
            f"{second}"
        )
        return Choice("foundation", best, "likely" if lead > CLOSE else "guess", tuple(why), ranked.runs)
    if not able:
        names = sorted(set(facts.lacking)) or ["mini"]
        return Choice("foundation", names[0], "guess", (*why, "no distance could be measured"))
    if len(able) > 1:
        why.append("no runs compare them: the nearest is taken")
    else:
        why.append("it is the only one at hand that does; `retemper foundations` lists those to download")
    return Choice("foundation", able[0], "guess" if len(able) > 1 else "sure", tuple(why))


def _e0s(facts: Facts, table: pd.DataFrame | None) -> Choice:
    """Re-estimation wherever it is determined; the runs' word on averaging beside it."""
    why = [f"compositions have rank {facts.rank} of {len(facts.elements)}"]
    why += [f"in every structure {ratio}" for ratio in facts.ratios]
    if facts.atoms:
        why.append(f"free atoms of {' '.join(facts.atoms)} are in the data")
    sure: Sure = "sure"
    if facts.needed:
        sure = "likely"
        why.append(
            f"energies alone do not determine all E0s: add free atoms of {' '.join(facts.needed)}; with e0s.force: "
            "true training on these ratios is unharmed, and energies of other ratios are arbitrary"
        )
    found = contrast.pairs(table, "e0s", "reestimate", "average") if table is not None else None
    if found is not None and len(found):
        off = float(contrast.effects(found, "target_energy_rmse", "log")["effect"].mean())
        why.append(f"in {len(found)} pairs of runs averaging leaves {math.exp(off):.3g} times the energy errors")
        return Choice("e0s", "reestimate" if off > -CLOSE else "average", sure, tuple(why), 2 * len(found))
    why.append("no runs at hand compare the methods: the paper found averaging to be off by ten times more")
    return Choice("e0s", "reestimate", sure, tuple(why))


def _strategy(facts: Facts, scope: str, table: pd.DataFrame | None) -> Choice:
    """The best of the runs at hand for scope and size; among equals the one that the paper names for the scope."""
    ranked = evidence.ranking(table, "strategy", scope, facts.train) if table is not None else None
    if table is None or ranked is None or len(ranked.levels) < 2:
        why = ["no runs at hand compare strategies: this is what the paper found for the scope, not a measurement here"]
        return Choice("strategy", PAPER[scope], "guess", tuple(why))
    equal = [level for level in ranked.levels if (ranked.behind(level) or 0.0) <= CLOSE]
    best = PAPER[scope] if PAPER[scope] in equal else equal[0]
    wins, of = agreement(table, best, scope, facts.train)
    why = [
        f"{ranked.runs} runs on {ranked.systems} systems, those near {facts.train} training structures first: "
        + ", ".join(
            f"{s} {'best' if w == 0 else evidence.percent(w) + ' behind'}"
            for s, w in zip(ranked.levels, ranked.worse, strict=True)
        )
    ]
    if len(equal) > 1:
        why.append(f"{', '.join(equal)} are within 5 %: as good as each other")
    why.append(f"within 5 % of the best on {wins} of {of} systems")
    checked = evidence.mean_regret(evidence.left_out(table, scope))
    if checked:
        words = ", ".join(f"always {r} {evidence.percent(v)}" for r, v in checked.items() if r != "advice")
        why.append(
            f"with one system left out this advice is {evidence.percent(checked['advice'])} behind the best; {words}"
        )
    sure: Sure = "sure" if of >= 3 and wins == of else "likely" if of >= 2 and wins > of / 2 else "guess"
    return Choice("strategy", best, sure, tuple(why), ranked.runs)


def agreement(table: pd.DataFrame, strategy: str, scope: str, size: float) -> tuple[int, int]:
    """On how many systems a strategy is within 5 % of the best, and on how many it was run."""
    wins = of = 0
    for system in sorted(set(finished(table)["system"])):
        own = evidence.ranking(table[table["system"].map(str) == system], "strategy", scope, size)
        if own is not None and own.behind(strategy) is not None and len(own.levels) > 1:
            of += 1
            wins += (own.behind(strategy) or 0.0) <= CLOSE
    return wins, of


def _settings(strategy: str, facts: Facts, scope: str, table: pd.DataFrame | None) -> tuple[dict[str, Any], Choice]:
    """Settings of the strategy that runs have varied, at their best; the others are its own."""
    found: dict[str, Any] = {}
    why: list[str] = []
    runs = 0
    if table is None:
        return {}, Choice("settings", "the strategy's own", "guess", (UNTRIED,))
    own = table[table["strategy"] == strategy]
    for axis in [name for name in own.columns if VALUE + name in own and not name.startswith(PARAMS)]:
        ranked = evidence.ranking(own, axis, scope, facts.train, own=True)
        if ranked is None or len(ranked.levels) < 2:
            continue
        runs += ranked.runs
        behind = ranked.behind(OWN)
        if behind is not None and behind <= CLOSE:
            why.append(
                f"{axis}: the strategy's own value is as good as any of {len(ranked.levels)} in {ranked.runs} runs"
            )
            continue
        rows = finished(own)
        found[axis] = rows.loc[rows[axis] == ranked.best, VALUE + axis].iloc[0]
        better = "" if behind is None else f", {evidence.percent(behind)} better than its own value"
        why.append(f"{axis} {found[axis]:g}: best of {len(ranked.levels)} in {ranked.runs} runs{better}")
    if not why:
        why.append(UNTRIED)
    text = ", ".join(f"{axis} {value:g}" for axis, value in found.items()) or "the strategy's own"
    return found, Choice("settings", text, "likely" if runs else "guess", tuple(why), runs)


def _obstacles(facts: Facts, foundation: str) -> list[str]:
    """What is wrong with the data before any training."""
    found = list(facts.warnings)
    if facts.train < 20:
        found.append(
            f"{facts.train} training structures: expect results to depend on which ones; label more (retemper round)"
        )
    one = facts.distances.get(foundation)
    if one is not None and one.beyond > FAR:
        found.append(
            f"{100 * one.beyond:.0f} % of the structures are beyond {foundation}'s pretraining distribution: "
            "it may be little better than training from scratch; run that too"
        )
    return found


def _extrapolations(facts: Facts, foundation: str, strategy: str, scope: str, table: pd.DataFrame | None) -> list[str]:
    """Where the runs at hand do not cover the question."""
    if table is None:
        return ["everything: no study has been run here"]
    rows = evidence.scored(table, scope)
    if rows.empty:
        need = "target and retention errors" if WEIGHT[scope] else "target errors"
        return [f"everything: no run has {need}"]
    found = []
    low, high = float(rows["train"].min()), float(rows["train"].max())
    if not low / 2 <= facts.train <= 2 * high:
        found.append(f"size: {facts.train} training structures, the runs have {low:g} to {high:g}")
    if foundation not in set(rows["foundation"]):
        found.append(f"foundation: no run has {foundation}; they have {', '.join(sorted(set(rows['foundation'])))}")
    if strategy not in set(rows["strategy"]):
        found.append(f"strategy: no run has {strategy}")
    systems = sorted(set(rows["system"]))
    if facts.name not in systems:
        found.append(f"system: {facts.name} is none of those that were run ({', '.join(systems)})")
    if len(systems) < 3:
        found.append(f"systems: {len(systems)} were run; how much they differ is not known")
    return found
