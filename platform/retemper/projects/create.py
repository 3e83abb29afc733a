"""A project's folder, written whole or not at all: files, data, DVC, git and the first commit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from retemper.config import strategies
from retemper.config.settings import load_settings
from retemper.core import vcs
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, require_space
from retemper.core.version import __version__
from retemper.projects import layout
from retemper.projects.base import FILE, Base

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # of a system, hence of a registered model
LARGE = 20_000_000  # bytes of data above which DVC keeps them instead of git
RAW = "data/raw"
NAMELESS = "git does not know who you are: the first commit is in retemper's name (git config user.name, user.email)"


def require_new(folder: Path) -> None:
    """Raise where `folder` cannot become a project: its name, or something is there."""
    if not NAME.fullmatch(folder.name):
        raise RetemperError(
            f"{folder.name!r} is no name of a project.",
            expected="letters, digits, - and _, beginning with a letter or digit: models are registered by it",
            fix="give another name",
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise RetemperError(f"{folder} is not empty.", fix="give another name, or move what is there")
    if folder.exists() and not folder.is_dir():
        raise RetemperError(f"{folder} is a file.", fix="give another name")


def require_data(files: Sequence[Path]) -> None:
    """Raise where a file is not there, or two have one name."""
    for path in files:
        if not path.is_file():
            raise RetemperError(f"{path} does not exist.", fix="check the path")
    names = [path.name for path in files]
    for name in names:
        if names.count(name) > 1:
            raise RetemperError(f"Two files are called {name}.", fix=f"rename one: both would be {RAW}/{name}")


def write(folder: Path, params: str, data: Sequence[Path], *, mini: bool) -> list[str]:
    """Make the project; `params` is the text of params.yaml, and `data` are copied.

    Returns
    -------
    list of str
        What the user should know, in words.
    """
    files = layout.machinery(mini=mini)
    size = sum(path.stat().st_size for path in data)
    require_space(folder, 2 * size + sum(map(len, files.values())))
    with atomic_folder(folder) as root:
        _put(root, files)
        Base.given(files).write(root / FILE)
        (root / "params.yaml").write_text(params)
        (root / RAW).mkdir(parents=True, exist_ok=True)
        for path in data:
            shutil.copyfile(path, root / RAW / path.name)
        _check(root)
        return [*_track(root, data, size), *_commit(root, folder.name)]


def write_example(folder: Path) -> list[str]:
    """Make the project of the embedded example; returns as `write`."""
    files = layout.machinery(mini=True)
    with atomic_folder(folder) as root:
        _put(root, files)
        Base.given(files).write(root / FILE)
        _put(root, layout.example())
        return _commit(root, folder.name)


def _check(root: Path) -> None:
    """Raise where the settings are none, or name a strategy that is not there."""
    for strategy in load_settings(root / "params.yaml").strategies:
        strategies.load(strategy, root)


def _put(root: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _track(root: Path, data: Sequence[Path], size: int) -> list[str]:
    """Leave large data to DVC, which needs a repository around them."""
    if size <= LARGE:
        return []
    vcs.git(root, "init", "-q")
    vcs.dvc(root, "add", "-q", *(f"{RAW}/{path.name}" for path in data))
    return [f"the data ({size / 1e6:.0f} MB) are kept by DVC and not by git: `dvc push` brings them to a remote"]


def _commit(root: Path, name: str) -> list[str]:
    return [] if vcs.begin(root, f"{name}: a project of retemper {__version__}") else [NAMELESS]
