"""Which of a run's candidates may become challenger and champion: the verdict, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from retemper.config.settings import Promotion
from retemper.promotion import gates, objective
from retemper.promotion.gates import Outcome, References
from retemper.registry.history import Model
from retemper.registry.measurements import Measured, Number

HEADING = "\n## Gates\n\n"  # of the table in a version's description


@dataclass(frozen=True)
class Judged:
    """One candidate with the outcome of every gate; `barred` says why only a person may promote it."""

    candidate: Measured
    outcomes: list[Outcome]
    objective: float | None
    barred: str | None = None

    @property
    def absolute(self) -> bool:
        return self.objective is not None and gates.passed(self.outcomes, absolute_only=True)

    @property
    def passed(self) -> bool:
        return self.objective is not None and self.barred is None and gates.passed(self.outcomes)

    def failures(self) -> list[str]:
        """What stands in the way of promotion, a line each."""
        found = [f"{o.metric} {o.rule}: {o.reason}" for o in self.outcomes if not o.passed]
        if not any(o.absolute for o in self.outcomes):
            found.append("no gate with max or min: nothing passes by default")
        if self.objective is None:
            found.append("promotion.objective was not measured")
        return [*found, self.barred] if self.barred else found


@dataclass(frozen=True)
class Verdict:
    """Candidates by strategy; the names of those that become challenger and champion, or `None`."""

    judged: dict[str, Judged]
    challenger: str | None
    champion: str | None


def pick_seed(seeds: Mapping[int, Measured], losses: Mapping[int, float], options: Promotion) -> tuple[int, str]:
    """The seed that stands for its strategy, and why: the lowest validation loss, so that the test set stays unseen.

    Of seeds for which something that the gates ask for was not measured (robustness is often
    measured on one seed), none is chosen while there is another.
    """
    asked = {gate.metric for gate in options.gates}
    lacking = {seed: {metric for metric in asked if one.number(metric).value is None} for seed, one in seeds.items()}
    least = min(map(len, lacking.values()))
    kept = [seed for seed in seeds if len(lacking[seed]) == least]
    chosen = min(kept, key=lambda seed: losses[seed])
    if len(kept) == len(seeds):
        return chosen, "the only seed" if len(seeds) == 1 else f"lowest validation loss of {len(seeds)} seeds"
    which = ", ".join(str(seed) for seed in kept)
    unmeasured = ", ".join(
        sorted(set().union(*(lacking[seed] for seed in seeds if seed not in kept)) - lacking[chosen])
    )
    return chosen, f"lowest validation loss of the seeds with {unmeasured} ({which} of {len(seeds)} seeds)"


def ranked(judged: Mapping[str, Judged], metric: str) -> list[str]:
    """Names of the candidates: those that pass every gate, then the absolute ones, then the rest; each by `metric`."""

    def key(name: str) -> tuple[bool, bool, float]:
        one = judged[name]
        return not one.passed, not one.absolute, objective.order(metric, one.objective)

    return sorted(judged, key=key)


def decide(
    candidates: Mapping[str, Measured],
    references: References,
    recipes: Mapping[str, Measured],
    options: Promotion,
    barred: Mapping[Model, str],
    look: int = 1,
) -> Verdict:
    """Judge one candidate a strategy.

    The next champion is the candidate with the best objective among those that pass all gates, if it is better than
    the present champion's (`objective.against_champion`); the challenger is the one among the others that pass the
    absolute gates. The present champion is not among the candidates.

    Parameters
    ----------
    recipes
        A model of every strategy of the run, the champion's among them: they tell the spread over seeds.
    barred
        Models that gates alone do not promote, and why.
    look
        For the how manieth time models are judged on these test frames (`gates.share`).
    """
    judged: dict[str, Judged] = {}
    for strategy, candidate in candidates.items():
        number = candidate.number(options.objective)
        outcomes = gates.judge(
            candidate,
            options.gates,
            references,
            recipes,
            candidates=len(candidates),
            look=look,
        )
        standing = objective.against_champion(candidate, options, references)
        outcomes += [] if standing is None else [standing]
        judged[strategy] = Judged(candidate, outcomes, number.value, barred.get(candidate.model))
    passing = [name for name, one in judged.items() if one.passed]
    champion = _best(judged, passing, options.objective)
    others = [name for name, one in judged.items() if one.absolute and name != champion]
    challenger = _best(judged, others, options.objective)
    return Verdict(judged, challenger, champion)


def _best(judged: Mapping[str, Judged], names: Iterable[str], metric: str) -> str | None:
    return min(names, key=lambda name: objective.order(metric, judged[name].objective), default=None)


# ------------------------------------------------------------------ as data and as text


def as_dict(
    verdict: Verdict, versions: Mapping[str, str], chosen: Mapping[str, str], about: Mapping[str, Any]
) -> dict[str, Any]:
    """The content of ``verdict.json``.

    Parameters
    ----------
    versions, chosen
        By strategy: the version that was judged, and why this seed stands for it.
    about
        What was judged, by which gates, against whom.
    """
    order = ranked(verdict.judged, about["objective"])
    return {
        **about,
        "challenger": verdict.challenger,
        "champion": verdict.champion,
        "candidates": {
            name: {
                "rank": rank,
                "version": versions[name],
                "seed": one.candidate.seed,
                "chosen": chosen[name],
                "sha256": one.candidate.sha256,
                "objective": one.objective,
                "absolute": one.absolute,
                "passed": one.passed,
                "barred": one.barred,
                "gates": [outcome.as_dict() for outcome in one.outcomes],
                "failures": one.failures(),
            }
            for rank, (name, one) in enumerate(((name, verdict.judged[name]) for name in order), 1)
        },
    }


def value_text(gate: Mapping[str, Any]) -> str:
    """A gate's value with its interval, from ``verdict.json``."""
    return Number(gate["value"], gate["low"], gate["high"], level=gate["level"], groups=gate["groups"]).text()


def markdown(content: Mapping[str, Any]) -> str:
    """``verdict.json`` as Markdown: the decision, then a table of gates a candidate."""
    lines = [f"# {content['model']}: verdict", "", *(f"- {line}" for line in decision(content))]
    lines += [f"- Gates: `{content['gates_digest']}`, {len(content['gates'])} of them.", *notes(content), ""]
    for name, one in content["candidates"].items():
        state = "passes" if one["passed"] else "does not pass"
        lines += [f"## {one['rank']}. {name}: {content['model']}/{one['version']} {state}", ""]
        lines += [f"Judged by seed {one['seed']}: {one['chosen']}.", ""]
        lines += [table(one), *([f"Barred: {one['barred']}.", ""] if one["barred"] else [])]
    return "\n".join(lines)


def notes(content: Mapping[str, Any]) -> list[str]:
    """What the number of looks at the test frames costs, and what a ratio to the foundation cannot tell; as a list."""
    lines = []
    look, candidates = content["look"], len(content["candidates"])
    if look > 0:
        spent = 100 * gates.share(candidates, look)
        lines.append(
            f"- Look {look} at these test frames: each comparison may spend {spent:.2g} % of its gate's error "
            f"({candidates} candidates; new test frames start at look 1)."
        )
    if content["foundation_level"] != content["level"] and any("forgetting" in g["metric"] for g in content["gates"]):
        lines.append(
            f"- forgetting_ratio: the retention labels are at {content['foundation_level']}, the models at "
            f"{content['level']}; the ratio holds this change as well as what was forgotten."
        )
    return lines


def table(one: Mapping[str, Any]) -> str:
    """The gates of a candidate, from ``verdict.json``, as Markdown."""
    lines = ["| gate | value | | reason |", "|---|---|---|---|"]
    for gate in one["gates"]:
        mark = "passed" if gate["passed"] else "**failed**"
        lines.append(f"| {gate['metric']} {gate['rule']} | {value_text(gate)} | {mark} | {gate['reason']} |")
    return "\n".join([*lines, ""])


def decision(content: Mapping[str, Any]) -> list[str]:
    """The decision in sentences."""
    model, candidates, before = content["model"], content["candidates"], content["before"]

    def called(name: str) -> str:
        return f"`{model}/{candidates[name]['version']}` ({name}, seed {candidates[name]['seed']})"

    lines = []
    if content["champion"]:
        lines.append(f"Champion: {called(content['champion'])} passes every gate.")
    elif before:
        lines.append(f"Champion: stays {before}. No candidate passes every gate.")
    else:
        lines.append("Champion: none. No candidate passes every gate.")
    if content["challenger"]:
        lines.append(
            f"Challenger: {called(content['challenger'])} is the best in {content['objective']} of the others "
            "that pass the absolute gates."
        )
    else:
        lines.append("Challenger: none. No other candidate passes the absolute gates.")
    return lines
