"""Foundation, E0 method, strategy and first settings for some data and a scope: what, why, how sure, on which runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from retemper.advise import evidence
from retemper.advise.evidence import CLOSE, PAPER, percent
from retemper.advise.facts import Facts
from retemper.config.settings import WEIGHT
from retemper.config.strategies import Value
from retemper.study import paired_effects
from retemper.study.table import finished_rows, text

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

    subject: str  # foundation, e0s, strategy, settings
    value: str
    sure: Sure
    reasons: tuple[str, ...]
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

    def value(self, subject: str) -> str:
        """The recommendation for foundation, e0s, strategy."""
        return next(choice.value for choice in self.choices if choice.subject == subject)


def advise(facts: Facts, scope: str, table: pd.DataFrame | None) -> Advice:
    """The recommendations for data and scope from the tables of studies, or from the paper where there are none."""
    foundation, e0s = _foundation(facts, table), _e0s(facts, table)
    comparable = evidence.runs_like(table, foundation=foundation.value, e0s=e0s.value) if table is not None else None
    strategy, setting, settings = _way(facts, scope, comparable)
    extrapolations = _extrapolations(facts, foundation.value, strategy.value, scope, table)
    if any(
        not entry.startswith("system: ") for entry in extrapolations
    ):  # a new system is what the check by leaving out is for
        strategy, setting = (replace(entry, sure="guess") for entry in (strategy, setting))
    choices = (foundation, e0s, strategy, setting)
    return Advice(facts, scope, choices, tuple(_obstacles(facts, foundation.value)), tuple(extrapolations), settings)


def _foundation(facts: Facts, table: pd.DataFrame | None) -> Choice:
    """The one that knows the elements and, of several, that did best on targets in runs, or is nearest."""
    nearest = sorted(facts.distances, key=lambda name: (facts.distances[name].beyond, facts.distances[name].median))
    able = [*nearest, *(name for name in facts.able if name not in facts.distances)]
    reasons = [f"{name} lacks {' '.join(missing)}" for name, missing in facts.lacking.items()]
    reasons += [f"{why}: set head of its entry" for why in facts.undecided.values()]
    reasons += [f"{name} has several heads: training starts from {head}" for name, head in facts.heads.items()]
    for name in able:
        if name not in facts.distances:
            reasons.append(
                f"{name} knows all elements; without a pool and a retention set no distance could be measured"
            )
            continue
        distance = facts.distances[name]
        reasons.append(
            f"{name} knows all elements; {100 * distance.beyond:.0f} % of {distance.structures} structures are "
            "farther from its "
            f"pretraining set than 95 % of its own held-out ones (median distance {distance.median:.2g} times theirs)"
        )
    if len(able) == 1:
        reasons.append("it is the only one at hand that does; `retemper foundations` lists those to download")
        return Choice("foundation", able[0], "sure", tuple(reasons))
    ranking = evidence.foundations(table, facts.train) if table is not None else None
    candidates = ranking.among(able) if ranking is not None else None
    if table is None or candidates is None or len(candidates.levels) < 2:
        return Choice("foundation", able[0], "guess", (*reasons, "no runs compare them: the nearest is taken"))
    rows = finished_rows(table)
    counts = ", ".join(f"{(rows['foundation'] == name).sum()} of {name}" for name in candidates.levels)
    lead, error = candidates.worse[1] - candidates.worse[0], math.hypot(*candidates.errors[:2])
    reasons.append(
        f"target forces in {counts}: those of {candidates.levels[1]} are {percent(lead)} larger than those of "
        f"{candidates.levels[0]} (factor of one standard error: {math.exp(error):.2f})"
    )
    sure: Sure = "likely" if lead > max(CLOSE, 2 * error) else "guess"
    return Choice("foundation", candidates.levels[0], sure, tuple(reasons), candidates.runs)


def _e0s(facts: Facts, table: pd.DataFrame | None) -> Choice:
    """Re-estimation wherever it is determined; the runs' word on averaging beside it."""
    reasons = [f"compositions have rank {facts.rank} of {len(facts.elements)}"]
    reasons += [f"in every structure {ratio}" for ratio in facts.ratios]
    if facts.atoms:
        reasons.append(f"free atoms of {' '.join(facts.atoms)} are in the data")
    sure: Sure = "sure"
    if facts.needed:
        sure = "likely"
        reasons.append(
            f"energies alone do not determine all E0s: add free atoms of {' '.join(facts.needed)}; with e0s.force: "
            "true training on these ratios is unharmed, and energies of other ratios are arbitrary"
        )
    pairs = _e0_pairs(table) if table is not None else None
    if pairs is None or not len(pairs):
        reasons.append("no runs at hand compare the methods: the paper found averaging to be off by ten times more")
        return Choice("e0s", "reestimate", sure, tuple(reasons))
    effect = paired_effects.estimate(pairs, "target_energy_rmse")
    words = effect.words() if effect is not None else "an unknown number of times"
    reasons.append(f"in {len(pairs)} pairs of runs averaging leaves {words} the energy errors of re-estimation")
    if effect is not None and effect.high < -CLOSE:
        return Choice(
            "e0s", "average", "guess", (*reasons, "which is not what the paper found: look for why"), 2 * len(pairs)
        )
    return Choice("e0s", "reestimate", sure, tuple(reasons), 2 * len(pairs))


def _e0_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Runs with re-estimated beside those with averaged E0s, each in its own study."""
    import pandas as pd

    frames = [paired_effects.pairs(rows, "e0s", "reestimate", "average") for _, rows in table.groupby("study")]
    return pd.concat(frames, ignore_index=True)


def _way(facts: Facts, scope: str, table: pd.DataFrame | None) -> tuple[Choice, Choice, dict[str, Value]]:
    """Strategy and settings: the best of the runs at hand; among equals the one that the paper names for the scope."""
    ranking = evidence.ranking(table, scope, facts.train) if table is not None else None
    if table is None or ranking is None or len(ranking.levels) < 2:
        untested = "no runs at hand compare strategies: this is what the paper found for the scope, not a measurement"
        own_settings = Choice("settings", "the strategy's own", "guess", (UNTRIED,))
        return Choice("strategy", PAPER[scope], "guess", (untested,)), own_settings, {}
    best = ranking.choose(scope)
    strategy, settings = evidence.settings_of(table, best)
    lines = [
        f"{name} {percent(behind) + ' behind' if behind else 'best'} (standard error {percent(error)})"
        for name, behind, error in zip(ranking.levels, ranking.worse, ranking.errors, strict=True)
    ]
    more = f", and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    reasons = [
        f"{ranking.runs} runs on {ranking.systems} systems, those near {facts.train} training structures first: "
        + "; ".join(lines[:SHOWN])
        + more
    ]
    wins, total = agreement(table, best, scope, facts.train)
    reasons.append(f"within 5 % of the best on {wins} of {total} systems")
    sure: Sure = "sure" if total >= 3 and wins == total else "likely" if total >= 2 and wins > total / 2 else "guess"
    regrets = evidence.mean_regret(evidence.leave_one_out(table, scope))
    if regrets:
        fixed = {rule: value for rule, value in regrets.items() if rule != "advice"}
        words = ", ".join(f"always {rule} {percent(value)}" for rule, value in fixed.items())
        reasons.append(f"with one system left out this advice is {percent(regrets['advice'])} behind the best; {words}")
        for rule in [rule for rule, value in fixed.items() if value < regrets["advice"] - CLOSE]:
            reasons.append(f"there it does worse than always {rule}: the best differs from system to system; run both")
            sure = "guess"
    return (
        Choice("strategy", strategy, sure, tuple(reasons), ranking.runs),
        _settings(strategy, best, settings, ranking, sure),
        settings,
    )


def _settings(strategy: str, best: str, settings: dict[str, Value], ranking: evidence.Ranking, sure: Sure) -> Choice:
    """In words: those of the chosen way beside the others of its strategy."""
    rivals = [name for name in ranking.levels if name.split(", ")[0] == strategy and name != best]
    value = ", ".join(f"{axis} {text(level)}" for axis, level in settings.items()) or "the strategy's own"
    if not rivals:
        return Choice("settings", value, "guess", (UNTRIED,) if not settings else ())
    means = dict(zip(ranking.levels, zip(ranking.worse, ranking.errors, strict=True), strict=True))
    reasons = []
    for name in rivals:
        behind, error = means[name][0] - means[best][0], means[name][1]
        than = "worse" if behind >= 0 else "better"
        reasons.append(f"{name}: {percent(abs(behind))} {than} in the mean (standard error {percent(error)})")
    return Choice("settings", value, "guess" if sure == "guess" else "likely", tuple(reasons), ranking.runs)


def agreement(table: pd.DataFrame, way: str, scope: str, size: float) -> tuple[int, int]:
    """On how many systems a way is within 5 % of the best, and on how many it was run beside others."""
    wins = total = 0
    for system in sorted(set(finished_rows(table)["system"])):
        system_ranking = evidence.ranking(table[table["system"].map(str) == system], scope, size)
        if (
            system_ranking is not None
            and (behind := system_ranking.behind(way)) is not None
            and len(system_ranking.levels) > 1
        ):
            total += 1
            wins += behind <= CLOSE
    return wins, total


def _obstacles(facts: Facts, foundation: str) -> list[str]:
    """What is wrong with the data before any training."""
    obstacles = list(facts.warnings)
    if facts.train < 20:
        obstacles.append(
            f"{facts.train} training structures: expect results to depend on which ones; label more (retemper round)"
        )
    distance = facts.distances.get(foundation)
    if distance is not None and distance.beyond > FAR:
        obstacles.append(
            f"{100 * distance.beyond:.0f} % of the structures are beyond {foundation}'s pretraining distribution: "
            "it may be little better than training from scratch; run that too"
        )
    return obstacles


def _extrapolations(facts: Facts, foundation: str, strategy: str, scope: str, table: pd.DataFrame | None) -> list[str]:
    """Where the runs at hand do not cover the question."""
    if table is None:
        return ["everything: no study has been run here"]
    rows = evidence.score_runs(table, scope)
    if rows.empty:
        need = "target and retention errors" if WEIGHT[scope] else "target errors"
        return [f"everything: no run has {need}"]
    gaps = []
    low, high = float(rows["train"].min()), float(rows["train"].max())
    if not low / 2 <= facts.train <= 2 * high:
        gaps.append(f"size: {facts.train} training structures, the runs have {low:g} to {high:g}")
    if foundation not in set(rows["foundation"]):
        gaps.append(f"foundation: no run has {foundation}; they have {', '.join(sorted(set(rows['foundation'])))}")
    if strategy not in set(rows["strategy"]):
        gaps.append(f"strategy: no run has {strategy}")
    systems = sorted(set(rows["system"]))
    if facts.name not in systems:
        gaps.append(f"system: {facts.name} is none of those that were run ({', '.join(systems)})")
    if len(systems) < 3:
        gaps.append(f"systems: {len(systems)} were run; how much they differ is not known")
    return gaps
