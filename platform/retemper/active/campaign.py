"""Rounds until there is a reason to stop. What is done lies in files, so a killed campaign goes on where it was.

A round's steps: ``data/rounds/NNN`` is made, DVC tracks it, the graph runs again, its results are noted in
``data/campaign.json``, all is committed, with the moves of aliases (``promotions.jsonl``). Each step sees from its
output whether it is done.
"""

from __future__ import annotations

from retemper.active import acquire, manual, source, stopping
from retemper.active.lock import alone
from retemper.config.project import Project
from retemper.core import vcs
from retemper.core.errors import RetemperError
from retemper.core.output import log
from retemper.data import rounds
from retemper.records.campaign import Campaign, ForceError, GateResult, Gates, RoundResult
from retemper.records.runs import read_results


def read_history(project: Project) -> Campaign:
    """What is noted of all rounds; nothing before the first."""
    return Campaign.read(project.campaign) if project.campaign.is_file() else Campaign()


def round_once(project: Project, *, resume: bool = False, partial: bool = False) -> int:
    """Make the next round, or finish the one that has begun; returns its number.

    Raises
    ------
    RetemperError
        Another campaign runs, tracked files differ from the last commit, or a round has begun and `resume` is
        not set.
    """
    with alone(project.root):
        vcs.require_clean(project.root)
        open_round = unfinished(project)
        if open_round is not None and not resume:
            raise RetemperError(
                f"Round {open_round} has begun.",
                fix=f"`retemper round --resume` finishes it; or delete .cache/rounds/{rounds.name(open_round)}",
            )
        if open_round is None and resume:
            raise RetemperError("No round has begun.", fix="retemper round")
        number = open_round if open_round is not None else _begin(project)
        _round(project, number, project.settings.acquire.labels, partial)
        return number


def campaign(project: Project, *, max_rounds: int, budget: int | None) -> str:
    """Rounds until `max_rounds` are made in all, `budget` structures were sent to the oracle, or `stopping` says so.

    Returns
    -------
    str
        Why it stopped.
    """
    root, labels = project.root, project.settings.acquire.labels
    with alone(project.root):
        vcs.require_clean(root)
        if not read_history(project).rounds and not rounds.numbers(project.rounds):
            vcs.dvc(root, "repro")
            _record(project, 0)
        open_round = unfinished(project)
        while True:
            if open_round is None:
                reason = _reason(project, max_rounds, budget)
                if reason:
                    break
            number = open_round if open_round is not None else _begin(project)
            number_left = labels if budget is None else min(labels, budget - spent(project))
            _round(project, number, max(1, number_left), False)
            open_round = None
        history = read_history(project)
        if history.stopped != reason:
            history.stopped = reason
            history.write(project.campaign)
            vcs.commit(root, f"Campaign {project.settings.system}: stopped, {reason}")
        return reason


def _begin(project: Project) -> int:
    """Number of the round to begin; what was made before it becomes a commit of its own, so that it can be undone."""
    number = rounds.next_number(project.rounds)
    vcs.commit(project.root, f"Before round {number} of {project.settings.system}")
    return number


def unfinished(project: Project) -> int | None:
    """Number of the round that has begun and is not committed."""
    finished = rounds.numbers(project.rounds)
    open_rounds = [number for number in acquire.open_rounds(project) if number not in finished]
    if open_rounds:
        return min(open_rounds)
    if finished:
        tracked = [f"{rounds.FOLDER}/{rounds.name(finished[-1])}.dvc", str(project.campaign.relative_to(project.root))]
        recorded = _is_recorded(project, finished[-1]) and not manual.labels_changed(project, finished[-1])
        if not recorded or vcs.git(project.root, "status", "--porcelain", "--", *tracked):
            return finished[-1]
    return None


def spent(project: Project) -> int:
    """Structures that were sent to the oracle: labelled or failed."""
    records = [rounds.read(project.rounds, number) for number in rounds.numbers(project.rounds)]
    return sum(len(record.labelled) + len(record.failed) for record in records)


def _reason(project: Project, max_rounds: int, budget: int | None) -> str | None:
    if budget is not None and spent(project) >= budget:
        return f"the budget of {budget} labels is spent"
    if len(rounds.numbers(project.rounds)) >= max_rounds:
        return f"{max_rounds} rounds are made"
    options = project.settings.acquire
    return stopping.reason(read_history(project).rounds, options.stop, options.labels)


def _round(project: Project, number: int, labels: int, partial: bool) -> None:
    """One round from exploring to its commit."""
    root = project.root
    acquire.make(project, number, labels=labels, partial=partial)
    folder = project.rounds / rounds.name(number)
    recorded = _is_recorded(project, number)
    if not recorded or not folder.with_name(f"{folder.name}.dvc").is_file():
        vcs.dvc(root, "add", "--quiet", str(folder.relative_to(root)))
    if not recorded:
        vcs.dvc(root, "repro")
        _record(project, number)
    result = next(result for result in read_history(project).rounds if result.round == number)
    vcs.commit(root, f"Round {number} of {project.settings.system}: {result.sentence()}")
    log.info(result.sentence())


def _is_recorded(project: Project, number: int) -> bool:
    """Whether the results of a round are in the history, with the labels that it has now."""
    identity = rounds.read(project.rounds, number).identity
    results = [result for result in read_history(project).rounds if result.round == number]
    return any(result.identity in (None, identity) for result in results)


def _record(project: Project, number: int) -> None:
    earlier = [r for r in read_history(project).rounds if r.round != number]  # with labels since corrected
    Campaign(rounds=[*earlier, result_of(project, number)]).write(project.campaign)


def result_of(project: Project, number: int) -> RoundResult:
    """What is noted of a round after the graph has run: counts, the explorer's successor, its error, the gates."""
    settings = project.settings
    results = read_results(project)
    strategy = source.from_project(project).strategy
    verdict = results.verdict
    record = rounds.read(project.rounds, number) if number else None
    counts = results.counts()
    usages = results.dataset.rounds if results.dataset else []
    usage = next((entry for entry in usages if entry.round == number), None)
    candidate = verdict.candidates.get(strategy) if verdict is not None else None
    gates = candidate.gates if candidate is not None else []
    outcomes = [GateResult(metric=gate.metric, rule=gate.rule, passed=gate.passed) for gate in gates]
    # a model that is as good as its forerunner is not better than it: such gates do not tell when to stop
    aims = [
        outcome.passed
        for outcome, gate in zip(outcomes, settings.promotion.gates, strict=False)
        if gate.relative_to != "champion"
    ]
    error = results.numbers(strategy).get("target.force_rmse")
    return RoundResult(
        round=number,
        labelled=0 if record is None else len(record.labelled),
        failed=0 if record is None else len(record.failed),
        identity=None if record is None else record.identity,
        used=0 if usage is None else usage.train + usage.valid,
        unused={} if usage is None else usage.reasons,
        train=counts.get("train", 0),
        valid=counts.get("valid", 0),
        test=results.dataset.sets["test"].hash if results.dataset else None,
        strategy=strategy,
        champion=verdict is not None and verdict.champion == strategy,
        force_rmse=None
        if error is None
        else ForceError(mean=error.value, std=error.std, low=error.low, high=error.high),
        gates=Gates(hold=bool(aims) and all(aims), outcomes=outcomes),
        selector=settings.acquire.selector.name if number else None,
    )
