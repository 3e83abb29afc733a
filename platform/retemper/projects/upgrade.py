"""``retemper upgrade``: the files that retemper gave to a project, renewed; what the user changed in them is kept.

Each file is merged from three: as it was given (``.retemper/base.json``), as the user has it, and as this release
has it. Where both changed the same lines the user's file stays, and the merge with marks lies beside it as FILE.new.
"""

from __future__ import annotations

import difflib
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retemper.core import vcs
from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.core.version import __version__
from retemper.projects import layout
from retemper.projects.base import FILE, Base, Given

SUFFIX = ".new"
MARK = "foundations/mini.model"  # projects that were given it have the embedded foundation


@dataclass(frozen=True)
class Change:
    """What is to become of one file.

    Attributes
    ----------
    what
        In words.
    content
        What the file will hold; `None`: it goes away, or stays as it is where `keep` is set.
    beside
        What is written to FILE.new, where the user has to decide.
    keep
        The user's file stays.
    base
        What is remembered as given from now on; `None`: forgotten.
    """

    name: str
    what: str
    content: bytes | None
    base: Given | None
    beside: bytes | None = None
    keep: bool = False


def plan(root: Path) -> tuple[Base, list[Change]]:
    """What was given to the project at `root`, and what an upgrade would change; nothing is written.

    Raises
    ------
    RetemperError
        The project was not made by `retemper init`, or files differ from the last commit.
    """
    if not (root / FILE).is_file():
        raise RetemperError(
            f"{root} does not say which files retemper gave to it: there is no {FILE}.",
            fix="in a clone of retemper's repository: git pull; in a project: git checkout the file",
        )
    vcs.require_clean(root, "an upgrade can then be looked at, and taken back")
    base = Base.read(root / FILE)
    new = layout.machinery(mini=MARK in base.files)
    given = {name: _settled(root, name, file) for name, file in base.files.items()}
    changes = [_change(root, name, given.get(name), new.get(name)) for name in sorted({*given, *new})]
    return base.model_copy(update={"files": given}), [change for change in changes if change is not None]


def _settled(root: Path, name: str, given: Given) -> Given:
    """What counts as given: what was offered as FILE.new counts once the user has deleted that."""
    if given.offered is None or (root / (name + SUFFIX)).exists():
        return given
    return Given.of(given.offered.encode())


def apply(root: Path, base: Base, changes: list[Change]) -> None:
    """Write the changes, and remember what was given; nothing is committed."""
    remembered = dict(base.files)
    for change in changes:
        path = root / change.name
        if change.beside is not None:
            _write(path.with_name(path.name + SUFFIX), change.beside)
        if not change.keep and change.content is None:
            path.unlink()
        elif not change.keep and change.content is not None:
            _write(path, change.content)
        if change.base is None:
            remembered.pop(change.name, None)
        else:
            remembered[change.name] = change.base
    Base(version=__version__, files=dict(sorted(remembered.items()))).write(root / FILE)


def difference(root: Path, changes: list[Change]) -> str:
    """The changes as a unified diff; of what is no text, a line."""
    parts = []
    for change in changes:
        path = root / change.name
        after = change.beside if change.beside is not None else change.content
        if change.keep and change.beside is None:
            continue
        before = path.read_bytes() if path.is_file() else b""
        try:
            old, new = before.decode().splitlines(True), (after or b"").decode().splitlines(True)
        except UnicodeDecodeError:
            parts.append(f"{change.name}: another file of {len(after or b'')} bytes\n")
            continue
        target = change.name + (SUFFIX if change.beside is not None else "")
        parts += difflib.unified_diff(old, new, f"a/{change.name}", f"b/{target}")
    return "".join(parts)


def _change(root: Path, name: str, given: Given | None, new: bytes | None) -> Change | None:
    """What is to become of one file; `None`: nothing."""
    path = root / name
    own = path.read_bytes() if path.is_file() else None
    base = None if new is None else Given.of(new)
    if given is not None and new is not None and given.same(new):
        return None
    if given is None:
        assert new is not None
        if own is None:
            return Change(name, "new", new, base)
        if own == new:
            return Change(name, "new, and there already", None, base, keep=True)
        return Change(name, f"new, but you have one of this name: {name}{SUFFIX} is retemper's", None, base, new, True)
    if new is None:
        if own is None:
            return Change(name, "no longer part of retemper", None, None, keep=True)
        if given.same(own):
            return Change(name, "no longer part of retemper: deleted", None, None)
        return Change(name, "no longer part of retemper; you changed it: it stays, and is yours", None, None, keep=True)
    if own is None:
        return Change(name, "you deleted it: it stays away", None, base, keep=True)
    if own == new:
        return Change(name, "you have it already", None, base, keep=True)
    if given.same(own):
        return Change(name, "renewed", new, base)
    return _merged(name, given, own, new)


def _merged(name: str, given: Given, own: bytes, new: bytes) -> Change:
    """The user's changes and the release's in one file, where they do not touch each other."""
    if given.text is None:
        what = f"you changed it, and it cannot be merged: {name}{SUFFIX} is retemper's"
        return Change(name, what, None, Given.of(new), new, True)
    merged, conflicts = _merge(given.text.encode(), own, new)
    if conflicts:
        what = f"{conflicts} conflict(s) with your changes: yours stays, {name}{SUFFIX} has both with marks"
        return Change(name, what, None, given.model_copy(update={"offered": new.decode()}), merged, True)
    return Change(name, "renewed, with your changes", merged, Given.of(new))


def _merge(base: bytes, own: bytes, new: bytes) -> tuple[bytes, int]:
    """Three-way merge by git: the result, and the number of conflicts."""
    versions: Mapping[str, bytes] = {"yours": own, "given": base, f"retemper {__version__}": new}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for k, content in enumerate(versions.values()):
            paths.append(str(Path(folder, str(k))))
            Path(paths[-1]).write_bytes(content)
        labels = [part for name in versions for part in ("-L", name)]
        done = subprocess.run(["git", "merge-file", "-p", *labels, *paths], capture_output=True, check=False)
    if not 0 <= done.returncode < 128:
        raise RetemperError(f"`git merge-file` failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout, done.returncode


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
