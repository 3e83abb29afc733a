"""A project that begins as another one: its settings, strategies, stages and data, with a history of its own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from retemper.config.settings import load_settings
from retemper.core import vcs
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_folder, atomic_write
from retemper.projects import create
from retemper.projects.base import FILE, Base

NOT_TAKEN = (vcs.MOVES, "data/campaign.json")  # what became champion there, and a campaign that runs there
SYSTEM = re.compile(r"^system:[ \t]*[^\s#]+", re.MULTILINE)


def write(folder: Path, source: str) -> list[str]:
    """Make a project from the last commit of another.

    Parameters
    ----------
    folder
        The new project; its name is that of the system, so that models of the two are told apart.
    source
        Address or folder of the other's git repository.

    Returns
    -------
    list of str
        What the user should know, in words.

    Raises
    ------
    RetemperError
        Git cannot clone it, or it is no project; nothing was written.
    """
    source = str(Path(source).absolute()) if Path(source).exists() else source
    with atomic_folder(folder) as root:
        vcs.git(root, "clone", "-q", "--depth", "1", "--", source, ".")
        commit = vcs.git(root, "rev-parse", "HEAD")
        tracked = vcs.git(root, "ls-files", "--", "data/*.dvc", "foundations/*.dvc").splitlines()
        shutil.rmtree(root / ".git")
        notes = _settings(root, source, folder.name)
        for name in NOT_TAKEN:
            (root / name).unlink(missing_ok=True)
        notes += _changed(root)
        known = vcs.begin(root, f"{folder.name}: from {source} at {commit}")
        notes += _data(root, source, commit, tracked)
    return notes if known else [*notes, create.NAMELESS]


def _settings(root: Path, source: str, name: str) -> list[str]:
    """Name the system anew, in the user's text; files that are named by paths outside are said."""
    path = root / "params.yaml"
    if not path.is_file():
        raise RetemperError(f"{source} is no project of retemper: it has no params.yaml.", fix="check the address")
    text = path.read_text(encoding="utf-8")
    text = SYSTEM.sub(f"system: {name}", text, count=1) if SYSTEM.search(text) else f"system: {name}\n{text}"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    settings = load_settings(path)
    pools = [pool.pool for pool in settings.replay.pools]
    files = [*settings.dataset.files, *settings.dataset.test_files, *pools, settings.foundation]
    outside = [file for file in files if Path(file).is_absolute() or file.startswith("..")]
    notes = [f"params.yaml names {file}, which lies outside the project" for file in outside]
    if settings.tracking.project is not None:
        notes.append("tracking.project is the other one's: on a server give yours a name of its own")
    return notes


def _changed(root: Path) -> list[str]:
    """Which of retemper's files are the other project's own: its stages are code that `dvc repro` runs."""
    if not (root / FILE).is_file():
        return [f"there is no {FILE}: `retemper upgrade` cannot renew its files"]
    given = Base.read(root / FILE).files
    scripts = sorted(path for kind in ("*.py", "dvc.yaml") for path in root.rglob(kind))
    names = [path.relative_to(root).as_posix() for path in scripts]
    own = [name for name in names if name not in given or not given[name].same((root / name).read_bytes())]
    return [f"`dvc repro` runs code that is not retemper's: look at {', '.join(own)}"] if own else []


def _data(root: Path, source: str, commit: str, tracked: list[str]) -> list[str]:
    """Fetch what DVC keeps of data; what cannot be had is said."""
    missing = []
    for name in tracked:
        path = name.removesuffix(".dvc")
        try:
            vcs.dvc(root, "get", "-q", "--rev", commit, source, path, "-o", path)
            vcs.dvc(root, "commit", "-q", "-f", name)
        except RetemperError:
            missing.append(path)
    if not missing:
        return []
    return [f"DVC could not fetch {', '.join(missing)}: `dvc pull` where their remote is reached, or put them there"]
