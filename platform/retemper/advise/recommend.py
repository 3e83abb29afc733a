"""Foundation, E0 method, strategy and first settings for some data and a scope: what, why, how sure, on which runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from retemper.advise import evidence
from retemper.advise.evidence import CLOSE, PAPER, percent
from retemper.advise.facts import Facts
from retemper.config.strategies import Value
from retemper.study import paired_effects
from retemper.study.table import finished, text
from retemper.sweep.choice import WEIGHT

if TYPE_CHECKING:
    import pandas as pd

Sure = Literal["sure", "likely", "guess"]
FAR = 0.5  # of the structures beyond the pretraining distribution: the foundation knows little of them
SHOWN = 6  # ways in the comparison
UNTRIED = (
    "no runs that compare vary its settings: its own (the paper's); `sweep: {trials: 16}` searches for better ones"
)


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
    settings: dict[str, Value]  # strategy's settings by dotted path

    def value(self, what: str) -> str:
        """The recommendation for foundation, e0s, strategy."""
        return next(choice.value for choice in self.choices if choice.what == what)


def advise(facts: Facts, scope: str, table: pd.DataFrame | None) -> Advice:
    """The recommendations for data and scope from the tables of studies, or from the paper where there are none."""
    foundation, e0s = _foundation(facts, table), _e0s(facts, table)
    alike = evidence.like(table, foundation=foundation.value, e0s=e0s.value) if table is not None else None
    strategy, chosen, settings = _way(facts, scope, alike)
    beyond = _extrapolations(facts, foundation.value, strategy.value, scope, table)
    if any(not one.startswith("system: ") for one in beyond):  # a new system is what the check by leaving out is for
        strategy, chosen = (replace(one, sure="guess") for one in (strategy, chosen))
    choices = (foundation, e0s, strategy, chosen)
    return Advice(facts, scope, choices, tuple(_obstacles(facts, foundation.value)), tuple(beyond), settings)


def _foundation(facts: Facts, table: pd.DataFrame | None) -> Choice:
    """The one that knows the elements and, of several, that did best on targets in runs, or is nearest."""
    near = sorted(facts.distances, key=lambda name: (facts.distances[name].beyond, facts.distances[name].median))
    able = [*near, *(name for name in facts.able if name not in facts.distances)]
    why = [f"{name} lacks {' '.join(missing)}" for name, missing in facts.lacking.items()]
    for name in able:
        if name not in facts.distances:
            why.append(f"{name} knows all elements; without a pool and a retention set no distance could be measured")
            continue
        one = facts.distances[name]
        why.append(
            f"{name} knows all elements; {100 * one.beyond:.0f} % of {one.structures} structures are farther from its "
            f"pretraining set than 95 % of its own held-out ones (median distance {one.median:.2g} times theirs)"
        )
    if len(able) == 1:
        why.append("it is the only one at hand that does; `retemper foundations` lists those to download")
        return Choice("foundation", able[0], "sure", tuple(why))
    ranked = evidence.foundations(table, facts.train) if table is not None else None
    tried = ranked.among(able) if ranked is not None else None
    if table is None or tried is None or len(tried.levels) < 2:
        return Choice("foundation", able[0], "guess", (*why, "no runs compare them: the nearest is taken"))
    rows = finished(table)
    counts = ", ".join(f"{(rows['foundation'] == name).sum()} of {name}" for name in tried.levels)
    lead, error = tried.worse[1] - tried.worse[0], math.hypot(*tried.errors[:2])
    why.append(
        f"target forces in {counts}: those of {tried.levels[1]} are {percent(lead)} larger than those of "
        f"{tried.levels[0]} (factor of one standard error: {math.exp(error):.2f})"
    )
    sure: Sure = "likely" if lead > max(CLOSE, 2 * error) else "guess"
    return Choice("foundation", tried.levels[0], sure, tuple(why), tried.runs)


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
    found = _e0_pairs(table) if table is not None else None
    if found is None or not len(found):
        why.append("no runs at hand compare the methods: the paper found averaging to be off by ten times more")
        return Choice("e0s", "reestimate", sure, tuple(why))
    measured = paired_effects.estimate(found, "target_energy_rmse")
    words = measured.words() if measured is not None else "an unknown number of times"
    why.append(f"in {len(found)} pairs of runs averaging leaves {words} the energy errors of re-estimation")
    if measured is not None and measured.high < -CLOSE:
        return Choice(
            "e0s", "average", "guess", (*why, "which is not what the paper found: look for why"), 2 * len(found)
        )
    return Choice("e0s", "reestimate", sure, tuple(why), 2 * len(found))


def _e0_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Runs with re-estimated beside those with averaged E0s, each in its own study."""
    import pandas as pd

    own = [paired_effects.pairs(rows, "e0s", "reestimate", "average") for _, rows in table.groupby("study")]
    return pd.concat(own, ignore_index=True)


def _way(facts: Facts, scope: str, table: pd.DataFrame | None) -> tuple[Choice, Choice, dict[str, Value]]:
    """Strategy and settings: the best of the runs at hand; among equals the one that the paper names for the scope."""
    ranked = evidence.ranking(table, scope, facts.train) if table is not None else None
    if table is None or ranked is None or len(ranked.levels) < 2:
        untested = "no runs at hand compare strategies: this is what the paper found for the scope, not a measurement"
        own = Choice("settings", "the strategy's own", "guess", (UNTRIED,))
        return Choice("strategy", PAPER[scope], "guess", (untested,)), own, {}
    best = ranked.choose(scope)
    strategy, settings = evidence.settings_of(table, best)
    shown = [
        f"{name} {percent(behind) + ' behind' if behind else 'best'} (standard error {percent(error)})"
        for name, behind, error in zip(ranked.levels, ranked.worse, ranked.errors, strict=True)
    ]
    rest = f", and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    why = [
        f"{ranked.runs} runs on {ranked.systems} systems, those near {facts.train} training structures first: "
        + "; ".join(shown[:SHOWN])
        + rest
    ]
    wins, of = agreement(table, best, scope, facts.train)
    why.append(f"within 5 % of the best on {wins} of {of} systems")
    sure: Sure = "sure" if of >= 3 and wins == of else "likely" if of >= 2 and wins > of / 2 else "guess"
    checked = evidence.mean_regret(evidence.left_out(table, scope))
    if checked:
        fixed = {rule: value for rule, value in checked.items() if rule != "advice"}
        words = ", ".join(f"always {rule} {percent(value)}" for rule, value in fixed.items())
        why.append(f"with one system left out this advice is {percent(checked['advice'])} behind the best; {words}")
        for rule in [rule for rule, value in fixed.items() if value < checked["advice"] - CLOSE]:
            why.append(f"there it does worse than always {rule}: the best differs from system to system; run both")
            sure = "guess"
    return (
        Choice("strategy", strategy, sure, tuple(why), ranked.runs),
        _settings(strategy, best, settings, ranked, sure),
        settings,
    )


def _settings(strategy: str, best: str, settings: dict[str, Value], ranked: evidence.Ranking, sure: Sure) -> Choice:
    """In words: those of the chosen way beside the others of its strategy."""
    others = [name for name in ranked.levels if name.split(", ")[0] == strategy and name != best]
    value = ", ".join(f"{axis} {text(level)}" for axis, level in settings.items()) or "the strategy's own"
    if not others:
        return Choice("settings", value, "guess", (UNTRIED,) if not settings else ())
    means = dict(zip(ranked.levels, zip(ranked.worse, ranked.errors, strict=True), strict=True))
    why = []
    for name in others:
        behind, error = means[name][0] - means[best][0], means[name][1]
        than = "worse" if behind >= 0 else "better"
        why.append(f"{name}: {percent(abs(behind))} {than} in the mean (standard error {percent(error)})")
    return Choice("settings", value, "guess" if sure == "guess" else "likely", tuple(why), ranked.runs)


def agreement(table: pd.DataFrame, chosen: str, scope: str, size: float) -> tuple[int, int]:
    """On how many systems a way is within 5 % of the best, and on how many it was run beside others."""
    wins = of = 0
    for system in sorted(set(finished(table)["system"])):
        own = evidence.ranking(table[table["system"].map(str) == system], scope, size)
        if own is not None and (behind := own.behind(chosen)) is not None and len(own.levels) > 1:
            of += 1
            wins += behind <= CLOSE
    return wins, of


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
