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
        begun = unfinished(project)
        if begun is not None and not resume:
            raise RetemperError(
                f"Round {begun} has begun.",
                fix=f"`retemper round --resume` finishes it; or delete .cache/rounds/{rounds.name(begun)}",
            )
        if begun is None and resume:
            raise RetemperError("No round has begun.", fix="retemper round")
        number = begun if begun is not None else _begin(project)
        _round(project, number, project.settings.acquire.labels, partial)
        return number


def campaign(project: Project, *, most: int, budget: int | None) -> str:
    """Rounds until `most` are made in all, `budget` structures were sent to the oracle, or `stopping` says so.

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
            _note(project, 0)
        begun = unfinished(project)
        while True:
            if begun is None:
                why = _reason(project, most, budget)
                if why:
                    break
            number = begun if begun is not None else _begin(project)
            left = labels if budget is None else min(labels, budget - spent(project))
            _round(project, number, max(1, left), False)
            begun = None
        history = read_history(project)
        if history.stopped != why:
            history.stopped = why
            history.write(project.campaign)
            vcs.commit(root, f"Campaign {project.settings.system}: stopped, {why}")
        return why


def _begin(project: Project) -> int:
    """Number of the round to begin; what was made before it becomes a commit of its own, so that it can be undone."""
    number = rounds.next_number(project.rounds)
    vcs.commit(project.root, f"Before round {number} of {project.settings.system}")
    return number


def unfinished(project: Project) -> int | None:
    """Number of the round that has begun and is not committed."""
    made = rounds.numbers(project.rounds)
    begun = [number for number in acquire.begun(project) if number not in made]
    if begun:
        return min(begun)
    if made:
        tracked = [f"{rounds.FOLDER}/{rounds.name(made[-1])}.dvc", str(project.campaign.relative_to(project.root))]
        noted = _noted(project, made[-1]) and not manual.corrected(project, made[-1])
        if not noted or vcs.git(project.root, "status", "--porcelain", "--", *tracked):
            return made[-1]
    return None


def spent(project: Project) -> int:
    """Structures that were sent to the oracle: labelled or failed."""
    made = [rounds.read(project.rounds, number) for number in rounds.numbers(project.rounds)]
    return sum(len(record.labelled) + len(record.failed) for record in made)


def _reason(project: Project, most: int, budget: int | None) -> str | None:
    if budget is not None and spent(project) >= budget:
        return f"the budget of {budget} labels is spent"
    if len(rounds.numbers(project.rounds)) >= most:
        return f"{most} rounds are made"
    options = project.settings.acquire
    return stopping.reason(read_history(project).rounds, options.stop, options.labels)


def _round(project: Project, number: int, labels: int, partial: bool) -> None:
    """One round from exploring to its commit."""
    root = project.root
    acquire.make(project, number, labels=labels, partial=partial)
    folder = project.rounds / rounds.name(number)
    noted = _noted(project, number)
    if not noted or not folder.with_name(f"{folder.name}.dvc").is_file():
        vcs.dvc(root, "add", "--quiet", str(folder.relative_to(root)))
    if not noted:
        vcs.dvc(root, "repro")
        _note(project, number)
    result = next(result for result in read_history(project).rounds if result.round == number)
    vcs.commit(root, f"Round {number} of {project.settings.system}: {result.sentence()}")
    print(result.sentence(), flush=True)


def _noted(project: Project, number: int) -> bool:
    """Whether the results of a round are in the history, with the labels that it has now."""
    identity = rounds.read(project.rounds, number).identity
    results = [result for result in read_history(project).rounds if result.round == number]
    return any(result.identity in (None, identity) for result in results)


def _note(project: Project, number: int) -> None:
    before = [r for r in read_history(project).rounds if r.round != number]  # with labels since corrected
    Campaign(rounds=[*before, result_of(project, number)]).write(project.campaign)


def result_of(project: Project, number: int) -> RoundResult:
    """What is noted of a round after the graph has run: counts, the explorer's successor, its error, the gates."""
    settings = project.settings
    results = read_results(project)
    strategy = source.of_project(project).strategy
    verdict = results.verdict
    record = rounds.read(project.rounds, number) if number else None
    counts = results.counts()
    rounds_joined = results.dataset.rounds if results.dataset else []
    joined = next((entry for entry in rounds_joined if entry.round == number), None)
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
        used=0 if joined is None else joined.train + joined.valid,
        unused={} if joined is None else joined.reasons,
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
