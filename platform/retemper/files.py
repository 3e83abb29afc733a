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

from retemper.errors import RetemperError


def project_root(start: Path | None = None) -> Path:
    """Nearest folder at or above `start` (default: the working directory) with a ``params.yaml``.

    Without `start`, ``RETEMPER_ROOT`` names the project: a job on a cluster runs in a copy of the
    code, and its data and results are elsewhere.
    """
    if start is None and (named := os.environ.get("RETEMPER_ROOT")):
        start = Path(named)
        if not (start / "params.yaml").is_file():
            raise RetemperError(
                f"RETEMPER_ROOT is {named}, where there is no params.yaml.",
                fix="give the project's folder, or unset it",
            )
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file():
            return folder
    raise RetemperError(
        f"No params.yaml in {here} or above it.",
        fix="run retemper inside a project folder (a clone of the repository)",
    )


@contextlib.contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """A full disk within the block becomes a `RetemperError`."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise RetemperError(
            f"No space left on the disk while writing {path}.", fix="free space, then run again"
        ) from error


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
    if not os.environ.get("DVC_STAGE"):
        return
    for left in path.parent.glob(f".[0-9]*.{glob.escape(path.name)}"):
        process = left.name[1:].removesuffix(f".{path.name}")
        if process.isdigit() and not _alive(int(process)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on failure it goes.

    The temporary name keeps the suffixes of `path`, so that writers which choose a
    format by suffix (``.extxyz.xz``) work. A full disk becomes a `RetemperError`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    _clear(path)
    try:
        with full_disk_explained(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it replaces `path` whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    _clear(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with full_disk_explained(path):
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise RetemperError(f"{path} does not exist.", fix="run `dvc repro` to make it") from None
    except json.JSONDecodeError as error:
        raise RetemperError(f"{path} is not JSON: {error}.", fix="delete it and run `dvc repro`") from error


def sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(content: Any) -> str:
    """First 16 hex digits of the sha256 of `content` as canonical JSON (keys sorted)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
