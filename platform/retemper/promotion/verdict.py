"""Which of a run's candidates may become challenger and champion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from retemper.config.settings import Promotion
from retemper.promotion import gates, objective
from retemper.promotion.gates import References
from retemper.records.trained_model import TrainedModel
from retemper.records.verdict import Candidate, GateOutcome
from retemper.registry.measurements import Measured


@dataclass(frozen=True)
class Assessment:
    """One candidate with the outcome of every gate; `barred` says why only a person may promote it."""

    candidate: Measured
    outcomes: list[GateOutcome]
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
        failures = [f"{o.metric} {o.rule}: {o.reason}" for o in self.outcomes if not o.passed]
        if not any(o.absolute for o in self.outcomes):
            failures.append("no gate with max or min: nothing passes by default")
        if self.objective is None:
            failures.append("promotion.objective was not measured")
        return [*failures, self.barred] if self.barred else failures


@dataclass(frozen=True)
class Decision:
    """Candidates by strategy; the names of those that become challenger and champion, or `None`."""

    assessments: dict[str, Assessment]
    challenger: str | None
    champion: str | None


def pick_seed(seeds: Mapping[int, Measured], losses: Mapping[int, float], options: Promotion) -> tuple[int, str]:
    """The seed that stands for its strategy, and why: the lowest validation loss, so that the test set stays unseen.

    Of seeds for which something that the gates ask for was not measured (robustness is often
    measured on one seed), none is chosen while there is another.
    """
    metrics = {gate.metric for gate in options.gates}
    missing = {
        seed: {metric for metric in metrics if measures.number(metric).value is None}
        for seed, measures in seeds.items()
    }
    fewest = min(map(len, missing.values()))
    complete = [seed for seed in seeds if len(missing[seed]) == fewest]
    best = min(complete, key=lambda seed: losses[seed])
    if len(complete) == len(seeds):
        return best, "the only seed" if len(seeds) == 1 else f"lowest validation loss of {len(seeds)} seeds"
    which = ", ".join(str(seed) for seed in complete)
    unmeasured = ", ".join(
        sorted(set().union(*(missing[seed] for seed in seeds if seed not in complete)) - missing[best])
    )
    return best, f"lowest validation loss of the seeds with {unmeasured} ({which} of {len(seeds)} seeds)"


def ranking(assessments: Mapping[str, Assessment], metric: str) -> list[str]:
    """Names of the candidates: those that pass every gate, then the absolute ones, then the rest; each by `metric`."""

    def key(name: str) -> tuple[bool, bool, float]:
        assessment = assessments[name]
        return not assessment.passed, not assessment.absolute, objective.order(metric, assessment.objective)

    return sorted(assessments, key=key)


def decide(
    candidates: Mapping[str, Measured],
    references: References,
    recipes: Mapping[str, Measured],
    options: Promotion,
    barred: Mapping[TrainedModel, str],
    look: int = 1,
) -> Decision:
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
    assessments: dict[str, Assessment] = {}
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
        comparison = objective.against_champion(candidate, options, references)
        outcomes += [] if comparison is None else [comparison]
        assessments[strategy] = Assessment(candidate, outcomes, number.value, barred.get(candidate.model))
    passing = [name for name, assessment in assessments.items() if assessment.passed]
    champion = _best(assessments, passing, options.objective)
    runners_up = [name for name, assessment in assessments.items() if assessment.absolute and name != champion]
    challenger = _best(assessments, runners_up, options.objective)
    return Decision(assessments, challenger, champion)


def _best(assessments: Mapping[str, Assessment], names: Iterable[str], metric: str) -> str | None:
    return min(names, key=lambda name: objective.order(metric, assessments[name].objective), default=None)


def candidates(
    assessments: Mapping[str, Assessment], metric: str, versions: Mapping[str, str], reasons: Mapping[str, str]
) -> dict[str, Candidate]:
    """For the record of the verdict, the first in rank first.

    Parameters
    ----------
    metric
        The objective.
    versions, reasons
        By strategy: the version that was judged, and why this seed stands for it.
    """
    return {
        name: Candidate(
            rank=rank,
            version=versions[name],
            seed=assessments[name].candidate.seed,
            chosen=reasons[name],
            sha256=assessments[name].candidate.sha256,
            objective=assessments[name].objective,
            absolute=assessments[name].absolute,
            passed=assessments[name].passed,
            barred=assessments[name].barred,
            gates=assessments[name].outcomes,
            failures=assessments[name].failures(),
        )
        for rank, name in enumerate(ranking(assessments, metric), 1)
    }
