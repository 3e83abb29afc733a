"""What DVC and git are asked to do: one place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from retemper.core.errors import RetemperError

STATE = ("dvc.lock", "data/rounds", "data/campaign.json")  # what a round changes itself, and its undoing puts back
MOVES = "promotions.jsonl"  # the stage promote adds to it, and nothing takes away
OWN = (*STATE, MOVES)
# DVC's command in a process that ends with its parent, so that a killed campaign leaves no graph running
CHILD = (
    "import sys; from retemper.core.processes import die_with_parent; die_with_parent(); "
    "from dvc.cli import main; sys.exit(main(sys.argv[1:]))"
)


def dvc(root: Path, *arguments: str) -> None:
    """Run a command of DVC; its output goes to the terminal. A failure is a `RetemperError`."""
    status = _dvc(root, *arguments)
    if status:
        raise RetemperError(
            f"`dvc {' '.join(arguments)}` failed (status {status}).",
            fix="see its messages above; then run the same command again: it goes on where it was",
        )


def is_as_tracked(root: Path, path: str) -> bool:
    """Whether what a ``.dvc`` file tracks is as it says."""
    return _dvc(root, "status", "--quiet", path) == 0


def _dvc(root: Path, *arguments: str) -> int:
    """Status of a command of DVC."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run([sys.executable, "-c", CHILD, *arguments], cwd=root, env=environment, check=False).returncode


def git(root: Path, *arguments: str) -> str:
    """Output of a git command; a failure is a `RetemperError`."""
    try:
        process = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise RetemperError(
            "git is not installed.", fix="install it (https://git-scm.com): versions are its work"
        ) from None
    if process.returncode:
        raise RetemperError(
            f"`git {' '.join(arguments)}` failed.",
            got=(process.stderr or process.stdout).strip()[:500],
            fix="see git's message",
        )
    return process.stdout.rstrip("\n")


def ask(root: Path, *arguments: str) -> str | None:
    """Output of a git command; `None` where git is not installed or says no."""
    try:
        return git(root, *arguments)
    except RetemperError:
        return None


def begin(root: Path, message: str) -> bool:
    """Make a folder a git repository with everything in it as the first commit.

    Returns
    -------
    bool
        Whether the commit is in the user's name; git may not know it, and then the commit is in retemper's.
    """
    git(root, "init", "-q")
    git(root, "add", "-A")
    try:
        git(root, "var", "GIT_AUTHOR_IDENT")
    except RetemperError:
        git(root, "-c", "user.name=retemper", "-c", "user.email=retemper@localhost", "commit", "-q", "-m", message)
        return False
    git(root, "commit", "-q", "-m", message)
    return True


def require_clean(root: Path, why: str = "the round's commit must hold the settings and code that made it") -> None:
    """No tracked file may differ from the last commit, but those that rounds write; `why` is for the error."""
    if not (root / ".dvc").is_dir():
        raise RetemperError(f"{root} is not under DVC.", expected="a git repository with `dvc init`", fix="dvc init")
    lines = git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *(f":(exclude){p}" for p in OWN))
    if lines:
        changed = [line[3:] for line in lines.splitlines()]
        raise RetemperError(
            f"{len(changed)} tracked file(s) differ from the last commit.",
            expected=f"a clean checkout: {why}",
            got=", ".join(changed[:5]),
            fix="commit or stash them",
        )


def commit(root: Path, message: str, paths: Sequence[str] = OWN) -> bool:
    """Commit what changed among `paths`; whether there was anything."""
    existing = [path for path in paths if (root / path).exists()]
    git(root, "add", "--", *existing)
    if not git(root, "status", "--porcelain", "--untracked-files=no", "--", *existing):
        return False
    git(root, "commit", "-q", "-m", message, "--", *existing)
    return True
