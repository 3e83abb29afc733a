"""The last round taken back: its commits, its folder, what the stages made with it, and the aliases that it moved."""

from __future__ import annotations

import shutil
from pathlib import Path

from retemper.active import acquire
from retemper.active.lock import alone
from retemper.config.project import Project
from retemper.core import vcs
from retemper.core.errors import RetemperError
from retemper.core.output import log
from retemper.core.vcs import MOVES, OWN, STATE, git
from retemper.data import rounds
from retemper.registry import history
from retemper.registry.history import Move


def undo(project: Project) -> int:
    """Put rounds, notes, ``dvc.lock`` and ``runs`` back to before the last committed round; returns its number.

    One new commit says so; none is removed. Labels stay in their cache, models in the registry. Aliases that the round
    moved go back to who had them, as a further move of the history. Killed anywhere, it goes on when called again.

    Raises
    ------
    RetemperError
        No round is committed, a round has begun, files differ from the last commit, or later commits build upon the
        round.
    """
    root = project.root
    with alone(project.root):
        vcs.require_clean(root)
        number = _last(project)
        tracked = f"{rounds.FOLDER}/{rounds.name(number)}.dvc"
        commit = git(root, "log", "-1", "--diff-filter=A", "--format=%H", "--", tracked)
        parent = git(root, "rev-parse", f"{commit}^")
        _require_undisturbed(root, number, commit, parent)
        folder = project.rounds / rounds.name(number)
        if folder.is_dir():
            _require_kept(root, number, tracked)
        moves = _moves(root, parent)
        shutil.rmtree(folder, ignore_errors=True)
        acquire.remove_work(project, number)
        paths = [
            path for path in STATE if any(git(root, "ls-tree", revision, "--", path) for revision in ("HEAD", parent))
        ]
        git(root, "restore", f"--source={parent}", "--staged", "--worktree", "--", *paths)
        vcs.dvc(root, "checkout", "--quiet")
        _give_back(project, number, moves)
        if (root / MOVES).is_file():
            git(root, "add", "--", MOVES)
            paths.append(MOVES)
        git(root, "commit", "-q", "-m", f"Undo round {number} of {project.settings.system}", "--", *paths)
        return number


def _last(project: Project) -> int:
    """The last round that is committed."""
    names = git(project.root, "ls-tree", "--name-only", "HEAD", f"{rounds.FOLDER}/").splitlines()
    committed = [int(Path(name).stem) for name in names if name.endswith(".dvc") and Path(name).stem.isdigit()]
    open_rounds = [number for number in acquire.open_rounds(project) if number > max(committed, default=0)]
    if open_rounds:
        raise RetemperError(
            f"Round {max(open_rounds)} has begun and is not committed.",
            fix=f"`retemper round --resume` finishes it; or delete .cache/rounds/{rounds.name(max(open_rounds))}",
        )
    if not committed:
        raise RetemperError("There is no round to undo.", expected=f"a committed round in {rounds.FOLDER}")
    return max(committed)


def _require_undisturbed(root: Path, number: int, commit: str, parent: str) -> None:
    """Raise where files or commits since the round are not its own."""
    against_head, against_parent = (
        set(git(root, "diff", "--name-only", "--relative", revision, "--", *STATE).splitlines())
        for revision in ("HEAD", parent)
    )
    if against_head & against_parent:  # what an undoing that was killed has put back is as it was before the round
        raise RetemperError(
            f"Files of round {number} differ from the last commit.",
            expected="a clean checkout",
            got=", ".join(sorted(against_head & against_parent)),
            fix="commit or restore them (`git checkout -- <file>`)",
        )
    for later in git(root, "log", "--format=%H", f"{commit}..HEAD", "--", *STATE).splitlines():
        files = git(root, "diff-tree", "--no-commit-id", "--name-only", "-r", "--relative", later).splitlines()
        of_round = all(any(name == path or name.startswith(f"{path}/") for path in OWN) for name in files)
        if (
            not of_round or "data/campaign.json" not in files
        ):  # a correction of the round's labels, the end of a campaign
            raise RetemperError(
                f"A later commit builds upon round {number}.",
                expected="nothing after it that changes dvc.lock, data/rounds or data/campaign.json",
                got=git(root, "log", "-1", "--format=%h %s", later),
                fix=f"`git revert {later[:10]}`, then undo the round; or go back on a branch: git checkout -b "
                f"other {parent[:10]} && dvc checkout",
            )


def _require_kept(root: Path, number: int, tracked: str) -> None:
    """Raise where the round's folder is not what DVC tracks; else have DVC's cache hold it."""
    if (root / tracked).is_file() and not vcs.is_as_tracked(root, tracked):
        raise RetemperError(
            f"The files of round {number} are not those that are committed.",
            fix=f"`dvc checkout {tracked}` puts them back; keep what you need of them elsewhere first",
        )
    if (root / tracked).is_file():
        vcs.dvc(root, "commit", "--quiet", "--force", tracked)


def _moves(root: Path, parent: str) -> list[Move]:
    """Moves of the history before the round."""
    if not git(root, "ls-tree", "--name-only", parent, "--", MOVES):
        return []
    lines = git(root, "show", f"{parent}:./{MOVES}").splitlines()
    return history.join(history.loads(line, MOVES) for line in lines if line.strip())


def _give_back(project: Project, number: int, moves: list[Move]) -> None:
    """Aliases that stand where the round put them go back to where `moves`, those before it, left them."""
    root, settings = project.root, project.settings
    moves_since = [move for move in history.read(root, settings.system) if move not in moves]
    for alias in dict.fromkeys(move.alias for move in moves_since):
        last = history.last(moves_since, alias)
        if last is None or last.how != "gates":
            continue
        from retemper.registry import aliases

        earlier = history.last([move for move in moves if move.system == settings.system], alias)
        version = earlier.version if earlier is not None and earlier.to is not None else None
        aliases.move(root, settings.system, alias, version, "override", f"round {number} was undone")
        log.info(f"{alias} of {settings.system}: {'nobody' if version is None else f'version {version}'}, as it was")
    if list((project.runs / "register").glob("*.json")):
        from retemper.registry import register

        register.sync(project)  # the candidate is the best of what is registered now
