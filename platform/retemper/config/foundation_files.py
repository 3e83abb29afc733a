"""Weights of foundations and structures published with them: on this machine, and what they were at first use."""

from __future__ import annotations

import functools
from pathlib import Path

from retemper.config import foundation_lock, foundations, licences
from retemper.config.foundations import Foundation, Structures
from retemper.core import downloads, weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import project_root, require_sha256, sha256


def require_served(entry: Foundation) -> None:
    """Raise where the catalogue says that the model is of a class that is not served."""
    if not entry.served:
        raise foundations.unserved(str(entry.kind), entry.name)


def require_licence(entry: Foundation) -> None:
    """Raise where the weights are under a licence that must be accepted, and was not."""
    terms = foundations.licence(entry)
    if terms is not None:
        licences.require(terms, entry.name)


def place(entry: Foundation, root: Path | None) -> Path:
    """Where the weights lie, or will lie once they are fetched."""
    return (root or project_root()) / entry.file if entry.file is not None else downloads.kept(str(entry.url))


def known_sha256(entry: Foundation, root: Path) -> str | None:
    """What the weights have to be: by the entry, else as at first use; `None` before that."""
    remembered = foundation_lock.read(root).foundations.get(entry.name)
    return entry.sha256 or (remembered.sha256 if remembered else None)


def weights(entry: Foundation, root: Path | None = None) -> Path:
    """Path of the weights on this machine: fetched on first use, the same file ever after.

    Raises
    ------
    RetemperError
        A class of models that is not served, a missing file, another content than the entry or the first use had, a
        licence that was not accepted, a download that failed. The file was not opened.
    """
    root = root or project_root()
    path = fetched(entry, root)
    source = str(entry.url or entry.file)
    foundation_lock.check(root, "foundations", entry.name, path, source, entry.sha256, f"the sha256 of {entry.name}")
    return path


def fetched(entry: Foundation, root: Path | None) -> Path:
    """Path of the weights, fetched where they were not; compared with nothing but what the entry says."""
    require_served(entry)
    require_licence(entry)
    path = place(entry, root)
    if entry.url is not None:
        downloads.fetch(entry.url, path, functools.partial(_check_weights, entry=entry, root=root))
    elif not path.is_file():
        raise RetemperError(
            f"Foundation {entry.name}: {path} does not exist.",
            fix="dvc pull, git checkout the file, or correct the path",
        )
    return path


def _check_weights(path: Path, entry: Foundation, root: Path | None) -> None:
    """Raise where a file that was fetched is none of weights, or another than it has to be."""
    known = entry.sha256 if root is None else known_sha256(entry, root)
    _check_sum(path, entry.name, str(entry.url), known)
    if not weight_files.whole(path):
        with path.open("rb") as file:
            start = file.read(16)
        raise RetemperError(
            f"{entry.name}: what {entry.url} gives is no file of weights, or half of one.",
            expected="a file of torch.save (*.model) or safetensors",
            got=f"{path.stat().st_size} bytes that begin with {start!r}",
            fix="check the address",
        )


def _check_sum(path: Path, name: str, url: str, known: str | None) -> None:
    if known is not None:
        what = f"{name}: what {url} gives is not what it was. It was not kept."
        fix = "ask its authors; if you trust the new one, change the sum in foundations/lock.yaml or in the settings"
        require_sha256(path, known, what, fix)


def structures(published: Structures, root: Path | None = None) -> Path:
    """Path of published structures on this machine: fetched on first use, the same file ever after.

    Raises
    ------
    RetemperError
        As `weights`.
    """
    root = root or project_root()
    path = fetched_structures(published, root)
    by = f"the sha256 of {published.name}"
    foundation_lock.check(root, "structures", published.name, path, published.url, published.sha256, by)
    return path


def structures_sha256(published: Structures, root: Path) -> str:
    """What published structures have to be: as at first use, which this may be."""
    remembered = foundation_lock.read(root).structures.get(published.name)
    known = published.sha256 or (remembered.sha256 if remembered else None)
    return known.lower() if known is not None else sha256(structures(published, root))


def fetched_structures(published: Structures, root: Path | None) -> Path:
    """Path of published structures, fetched where they were not; compared with nothing but what the entry says."""
    path = downloads.kept(published.url)
    downloads.fetch(published.url, path, functools.partial(_check_structures, published=published, root=root))
    return path


def _check_structures(path: Path, published: Structures, root: Path | None) -> None:
    remembered = foundation_lock.read(root).structures.get(published.name) if root is not None else None
    _check_sum(path, published.name, published.url, published.sha256 or (remembered.sha256 if remembered else None))
    with path.open("rb") as file:
        first = file.readline(100)
    if not first.strip().isdigit():
        raise RetemperError(
            f"{published.name}: what {published.url} gives is no extended xyz.",
            expected="a number of atoms in its first line",
            got=repr(first),
        )
