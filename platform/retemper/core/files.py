"""Files that are written whole or not at all, and the hashes that name them."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retemper.core.errors import RetemperError
from retemper.core.output import log


def find_project(start: Path | None = None) -> Path | None:
    """Nearest folder at or above `start` (default: the working directory) with a ``params.yaml``; `None` without one.

    Without `start`, ``RETEMPER_ROOT`` names the project: a job on a cluster runs in a copy of the
    code, and its data and results are elsewhere.
    """
    if start is None and (configured := os.environ.get("RETEMPER_ROOT")):
        start = Path(configured)
        if not (start / "params.yaml").is_file():
            raise RetemperError(
                f"RETEMPER_ROOT is {configured}, where there is no params.yaml.",
                fix="give the project's folder, or unset it",
            )
    start_folder = (start or Path.cwd()).resolve()
    folders = (start_folder, *start_folder.parents)
    return next((folder for folder in folders if (folder / "params.yaml").is_file()), None)


def project_root(start: Path | None = None) -> Path:
    """The folder of `find_project`; none is a `RetemperError`."""
    root = find_project(start)
    if root is None:
        raise RetemperError(
            f"No project here: there is no params.yaml in {(start or Path.cwd()).resolve()} or above it.",
            fix="`retemper init NAME` makes a project; or cd into one",
        )
    return root


SILENCE = 3.0  # s to wait for a lock without a word

# What a file system answers that whoever runs a command can put right: in words, and how.
ANSWERS = {
    errno.ENOSPC: ("No space left on the disk while writing {path}.", "free space, then run again"),
    errno.EDQUOT: (
        "The disk quota is used up, while writing {path}.",
        "delete files, then run again",
    ),
    errno.EFBIG: ("{path} would be larger than a file may be here.", "raise the limit (ulimit -f), then run again"),
    errno.EROFS: ("{path} cannot be written: its file system is read-only.", "work where files can be written"),
    errno.EACCES: (
        "{path}: permission denied.",
        "give the user who runs this the right to it (ls -ld)",
    ),
    errno.EPERM: ("{path}: not permitted.", "give the user who runs this the right to it (lsattr, ls -ld)"),
    errno.EMFILE: ("Too many files are open; the one too many was {path}.", "raise the limit (ulimit -n)"),
    errno.ENAMETOOLONG: ("{path}: the name is too long for this file system.", "use shorter names"),
    errno.ENOTDIR: ("{path}: a part of it is a file where a folder is needed.", "move that file away"),
    errno.EISDIR: ("{path} is a folder where a file is needed.", "move the folder away"),
    errno.EIO: ("{path}: the disk gives an error.", "check the disk, then run again"),
    errno.ESTALE: ("{path}: the network file system has lost it.", "mount it again, then run again"),
}


def explain(error: OSError, path: str | Path | None = None) -> RetemperError | None:
    """What the file system answered, as a `RetemperError`; `None` where that is not for the user to put right.

    `path` is what was written or read, where the error does not say it, or names a temporary file beside it.
    """
    if error.errno not in ANSWERS:
        return None
    problem, fix = ANSWERS[error.errno]
    name = error.filename if isinstance(error.filename, str) else None
    if path is not None and (name is None or Path(name).name.endswith(Path(path).name)):  # or what it was to replace
        name = str(path)
    return RetemperError(problem.format(path=name or "a file"), fix=fix)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses within the block (full, quota, rights, ...) becomes a `RetemperError` about `path`."""
    try:
        yield
    except OSError as error:
        reason = explain(error, path)
        if reason is None:
            raise
        raise reason from error


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _clear(path: Path) -> None:
    """Remove what killed processes left of `path`, within a stage: DVC lets one process at a time write its outputs."""
    if os.environ.get("DVC_STAGE"):
        clear_leftovers(path.parent, glob.escape(path.name))


def clear_leftovers(folder: Path, name: str = "*") -> None:
    """Remove the temporary files and folders that killed processes left in `folder`, beside files of this `name`."""
    for leftover in folder.glob(f".[0-9]*.{name}"):
        process = leftover.name[1:].partition(".")[0]
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on failure it goes.

    The temporary name keeps the suffixes of `path`, so that writers which choose a
    format by suffix (``.extxyz.xz``) work. What the disk refuses becomes a `RetemperError`.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it replaces `path` whole."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path, activity: str) -> Iterator[None]:
    """One process at a time within the block; `activity` says what the other one does, when this one has to wait."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=SILENCE)
    except Timeout:
        log.info(f"waiting for another process that {activity} (it holds {path})")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def require_space(folder: str | Path, need: int) -> None:
    """Raise when the disk of `folder` has fewer than `need` bytes free."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < need:
        raise RetemperError(
            f"Too little disk space under {folder}.",
            expected=f"at least {need / 1e6:.0f} MB free",
            got=f"{free / 1e6:.0f} MB",
            fix="free space (dvc gc, old runs/), then run again",
        )


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON; NaN and infinities are refused (they are not JSON)."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or broken one is a `RetemperError`."""
    path = Path(path)
    try:
        with disk_errors(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RetemperError(f"{path} does not exist.", fix="run `dvc repro` to make it") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RetemperError(f"{path} is not JSON: {error}.", fix="delete it and run `dvc repro`") from error


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_sha256(path: str | Path, expected: str, what: str, fix: str, place: str | None = None) -> str:
    """The sha256 of a file, which must be the `expected` one.

    Raises
    ------
    RetemperError
        It is not. `what` says so in a sentence, `place` where the expected sum stands.
    """
    got = sha256(path)
    if got != expected.lower():
        where = f" ({place})" if place else ""
        raise RetemperError(what, expected=f"sha256 {expected}{where}", got=f"sha256 {got}", fix=fix)
    return got


def digest(content: Any) -> str:
    """First 16 hex digits of the sha256 of `content` as canonical JSON (keys sorted)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
