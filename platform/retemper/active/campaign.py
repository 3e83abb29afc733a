"""Rounds until there is a reason to stop. What is done lies in files, so a killed campaign goes on where it was.

A round's steps: ``data/rounds/NNN`` is made, DVC tracks it, the graph runs again, its results are noted in
``data/campaign.json``, all is committed, with the moves of aliases (``promotions.jsonl``). Each step sees from its
output whether it is done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retemper.active import manual, stopping
from retemper.active.acquire import acquire
from retemper.active.lock import alone
from retemper.config.settings import Settings, load_settings
from retemper.core import vcs
from retemper.core.errors import RetemperError
from retemper.core.files import read_json, write_json
from retemper.data import rounds
from retemper.records.runs import read_results, summary_value

HISTORY = Path("data/campaign.json")


def read_history(root: Path) -> dict[str, Any]:
    """``data/campaign.json``: entries by round, round 0 before any label, and why the last campaign stopped."""
    path = root / HISTORY
    content: dict[str, Any] = read_json(path) if path.is_file() else {"rounds": [], "stopped": None}
    return content


def round_once(root: Path, *, resume: bool = False, partial: bool = False) -> int:
    """Make the next round, or finish the one that has begun; returns its number.

    Raises
    ------
    RetemperError
        Another campaign runs, tracked files differ from the last commit, or a round has begun and `resume` is
        not set.
    """
    with alone(root):
        settings = load_settings(root / "params.yaml")
        vcs.require_clean(root)
        begun = unfinished(root)
        if begun is not None and not resume:
            raise RetemperError(
                f"Round {begun} has begun.",
                fix=f"`retemper round --resume` finishes it; or delete {rounds.WORK / rounds.name(begun)}",
            )
        if begun is None and resume:
            raise RetemperError("No round has begun.", fix="retemper round")
        number = begun if begun is not None else _next(settings, root)
        _round(settings, root, number, settings.acquire.labels, partial)
        return number


def campaign(root: Path, *, most: int, budget: int | None) -> str:
    """Rounds until `most` are made in all, `budget` structures were sent to the oracle, or `stopping` says so.

    Returns
    -------
    str
        Why it stopped.
    """
    with alone(root):
        settings = load_settings(root / "params.yaml")
        vcs.require_clean(root)
        if not read_history(root)["rounds"] and not rounds.numbers(root):
            vcs.dvc(root, "repro")
            _note(settings, root, 0)
        begun = unfinished(root)
        while True:
            if begun is None:
                why = _reason(settings, root, most, budget)
                if why:
                    break
            number = begun if begun is not None else _next(settings, root)
            left = settings.acquire.labels if budget is None else min(settings.acquire.labels, budget - spent(root))
            _round(settings, root, number, max(1, left), False)
            begun = None
        content = read_history(root)
        if content["stopped"] != why:
            write_json(root / HISTORY, {**content, "stopped": why})
            vcs.commit(root, f"Campaign {settings.system}: stopped, {why}")
        return why


def next_round(root: Path) -> int:
    """Number after the last round."""
    return max(rounds.numbers(root), default=0) + 1


def _next(settings: Settings, root: Path) -> int:
    """Number of the round to begin; what was made before it becomes a commit of its own, so that it can be undone."""
    number = next_round(root)
    vcs.commit(root, f"Before round {number} of {settings.system}")
    return number


def unfinished(root: Path) -> int | None:
    """Number of the round that has begun and is not committed."""
    begun = [int(path.name) for path in (root / rounds.WORK).glob("[0-9]*") if (path / "plan.json").is_file()]
    there = rounds.numbers(root)
    begun = [number for number in begun if number not in there]
    if begun:
        return min(begun)
    if there:
        path = f"{rounds.FOLDER}/{rounds.name(there[-1])}.dvc"
        noted = _noted(root, there[-1]) and not manual.corrected(root, there[-1])
        if not noted or vcs.git(root, "status", "--porcelain", "--", path, str(HISTORY)):
            return there[-1]
    return None


def spent(root: Path) -> int:
    """Structures that were sent to the oracle: labelled or failed."""
    made = [rounds.about(root, number) for number in rounds.numbers(root)]
    return sum(len(about["labelled"]) + len(about["failed"]) for about in made)


def _reason(settings: Settings, root: Path, most: int, budget: int | None) -> str | None:
    if budget is not None and spent(root) >= budget:
        return f"the budget of {budget} labels is spent"
    made = len(rounds.numbers(root))
    if made >= most:
        return f"{most} rounds are made"
    return stopping.reason(read_history(root)["rounds"], settings.acquire.stop, settings.acquire.labels)


def _round(settings: Settings, root: Path, number: int, labels: int, partial: bool) -> None:
    folder = acquire(settings, root, number, labels=labels, partial=partial)
    relative = folder.relative_to(root)
    noted = _noted(root, number)
    if not noted or not folder.with_name(f"{folder.name}.dvc").is_file():
        vcs.dvc(root, "add", "--quiet", str(relative))
    if not noted:
        vcs.dvc(root, "repro")
        _note(settings, root, number)
    entry = next(entry for entry in read_history(root)["rounds"] if entry["round"] == number)
    vcs.commit(root, message(settings, entry))
    print(sentence(entry), flush=True)


def _noted(root: Path, number: int) -> bool:
    """Whether the results of a round are in the history, with the labels that it has now."""
    identity = rounds.about(root, number).get("identity")
    entries = [entry for entry in read_history(root)["rounds"] if entry["round"] == number]
    return any(entry.get("identity", identity) == identity for entry in entries)


def _note(settings: Settings, root: Path, number: int) -> None:
    content = read_history(root)
    before = [entry for entry in content["rounds"] if entry["round"] != number]  # with labels since corrected
    write_json(root / HISTORY, {"rounds": [*before, entry(settings, root, number)], "stopped": None})


def entry(settings: Settings, root: Path, number: int) -> dict[str, Any]:
    """What is noted of a round after the graph has run: counts, the explorer's successor, its error, the gates."""
    from retemper.active.source import of_project

    results = read_results(root, settings)
    strategy = of_project(settings, root).strategy
    verdict = results.verdict
    about = rounds.about(root, number) if number else {"labelled": [], "failed": [], "selector": None}
    counts = results.counts()
    rounds_joined = results.dataset.rounds if results.dataset else []
    joined = next((entry for entry in rounds_joined if entry.round == number), None)
    candidate = verdict.candidates.get(strategy) if verdict is not None else None
    gates = candidate.gates if candidate is not None else []
    outcomes = [{"metric": g.metric, "rule": g.rule, "passed": g.passed} for g in gates]
    # a model that is as good as its forerunner is not better than it: such gates do not tell when to stop
    aims = [
        outcome["passed"]
        for outcome, gate in zip(outcomes, settings.promotion.gates, strict=False)
        if gate.relative_to != "champion"
    ]
    return {
        "round": number,
        "labelled": len(about["labelled"]),
        "failed": len(about["failed"]),
        "identity": about.get("identity"),
        "used": 0 if joined is None else joined.train + joined.valid,
        "unused": {} if joined is None else joined.reasons,
        "train": counts.get("train", 0),
        "valid": counts.get("valid", 0),
        "test": results.dataset.sets["test"].hash if results.dataset else None,
        "strategy": strategy,
        "champion": verdict is not None and verdict.champion == strategy,
        "force_rmse": summary_value(results.evaluations.get(strategy), "target", "force_rmse"),
        "gates": {"hold": bool(aims) and all(aims), "outcomes": outcomes},
        "selector": settings.acquire.selector.name if number else None,
    }


def message(settings: Settings, entry: dict[str, Any]) -> str:
    """Of the commit."""
    return f"Round {entry['round']} of {settings.system}: {sentence(entry)}"


def used(entry: dict[str, Any]) -> str:
    """How many labels of a round are in the training and validation sets, and why others are not."""
    if entry.get("used", entry["labelled"]) == entry["labelled"]:
        return f"{entry['labelled']} labels"
    why = ", ".join(f"{kind} {number}" for kind, number in entry["unused"].items()) or "the round is left out"
    return f"{entry['used']} of {entry['labelled']} labels used ({why})"


def sentence(entry: dict[str, Any]) -> str:
    """A round in words."""
    error = entry["force_rmse"]
    text = f"{used(entry)}, {entry['failed']} failed, {entry['train']} for training; {entry['strategy']}"
    if error is not None:
        text += f" {error['mean']:.1f} meV/A"
    held = [outcome["passed"] for outcome in entry["gates"]["outcomes"]]
    return text + (f"; {sum(held)} of {len(held)} gates hold" if held else "")
