"""Folders for passing files outside of the project: of this user alone, whoever else works on the machine."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from retemper.core.errors import RetemperError

LONGEST = 40  # characters of Ray's folder: the names of its sockets below it may have 107 in all


def folder() -> Path:
    """Where files of this node go: ``RETEMPER_SCRATCH``, or a folder below the temporary one; see `private`."""
    return private(Path(os.environ.get("RETEMPER_SCRATCH") or _below(tempfile.gettempdir())))


def ray_folder() -> Path:
    """Where a Ray of this process keeps its sockets and logs: its own choice is open to every user of the machine."""
    path = folder() / "ray"
    return path if len(str(path)) <= LONGEST else private(_below("/tmp")) / "ray"


def _below(place: str) -> Path:
    return Path(place) / f"retemper-{os.getuid()}"


def private(path: Path) -> Path:
    """`path` as a folder that this user alone can enter; made if need be.

    Raises
    ------
    RetemperError
        It belongs to another user, is a link, or others can write to it: what lies in it may be anyone's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    got = ""
    if not stat.S_ISDIR(status.st_mode):
        got = "a link" if stat.S_ISLNK(status.st_mode) else "a file"
    elif status.st_uid != os.getuid():
        got = f"a folder of user {status.st_uid}"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        got = f"a folder that others can write to (mode {stat.S_IMODE(status.st_mode):o})"
    if got:
        raise RetemperError(
            f"The scratch folder {path} is not this user's own.",
            expected=f"a folder of user {os.getuid()} with mode 700",
            got=got,
            fix="remove it, or set RETEMPER_SCRATCH to a folder of your own",
        )
    path.chmod(0o700)
    return path
