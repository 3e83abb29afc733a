"""The catalogue of foundation models, ``foundations/foundations.yaml``.

An entry is either embedded (``file``) or named: downloaded on first use from where MACE's own
loaders have it (``loader: mace_mp|mace_off|mace_omol`` and ``model``). Weights are pickles: they are
opened when the entry has their ``sha256``, and not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from retemper.config import released
from retemper.config.setting_errors import in_file
from retemper.config.settings import Section, Settings, parse_named
from retemper.config.strict_yaml import Location, read_yaml
from retemper.core import weight_files
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import project_root, sha256
from retemper.core.output import log

CATALOGUE = Path("foundations/foundations.yaml")


class Foundation(Section):
    """One entry. `name` is its key in the catalogue."""

    name: str
    about: str
    level_of_theory: str
    licence: str
    citation: str
    elements: str | None = None  # "H Li B ..." or a description such as "89 elements"
    file: str | None = None  # embedded model, relative to the project root
    sha256: str | None = None  # of the file, without which it is not opened
    loader: Literal["mace_mp", "mace_off", "mace_omol"] | None = None
    model: str | None = None  # name that the loader knows
    head: str | None = None  # head to use of a multihead model
    heads: dict[str, str] | None = None  # level of theory by head, where it has several and they are known
    pool: str | None = None  # pretraining structures with labels: default replay pool
    retention: str | None = None  # held-out structures of the pretraining distribution


def catalogue(root: Path | None = None) -> dict[str, Foundation]:
    """All entries by name."""
    path = (root or project_root()) / CATALOGUE
    return {name: _entry(path, name, content) for name, content in read_yaml(path).items()}


def _entry(path: Path, name: str, content: Any) -> Foundation:
    def place(location: Location) -> str:
        return in_file(path, str(CATALOGUE))((name, *location))

    return parse_named(Foundation, name, content, place)


def find(name: str, root: Path | None = None) -> Foundation:
    """The entry called `name`; an unknown name lists the options."""
    entries = catalogue(root)
    if name not in entries:
        raise unknown("foundation", name, entries)
    return entries[name]


def chosen(settings: Settings, root: Path | None = None) -> Foundation:
    """The foundation of the settings, with the head that they name."""
    return with_head(find(settings.foundation, root), settings.head)


def with_head(entry: Foundation, head: str | None) -> Foundation:
    """`entry` with another head and the level of theory of that; `None`: as it is."""
    if head is None:
        return entry
    level = (entry.heads or {}).get(head, entry.level_of_theory)
    return entry.model_copy(update={"head": head, "level_of_theory": level})


def weights(foundation: Foundation, root: Path | None = None) -> Path:
    """Path of the weights on this machine, checked: no one unpickles a file whose sha256 the catalogue does not know.

    Named models are downloaded into MACE's cache on first use.

    Raises
    ------
    RetemperError
        A missing file, an entry without a sha256 (the message says which it would be), another sha256,
        or a download that failed. The file was not opened.
    """
    if foundation.file is not None:
        path = (root or project_root()) / foundation.file
        if not path.is_file():
            raise RetemperError(
                f"Foundation {foundation.name}: {path} does not exist.", fix="dvc pull, or git checkout the file"
            )
    else:
        path = _download(foundation)
    got = sha256(path)
    if foundation.sha256 is None:
        origin = "whoever gave you the file" if foundation.file is not None else f"{foundation.about} as published"
        raise RetemperError(
            f"Foundation {foundation.name} has no sha256 in {CATALOGUE}. Weights are a pickle, to open them is to run "
            f"what is in them: {path} was not opened.",
            expected="the sha256 of the file that you trust, once, in the entry; later changes are refused by it",
            got=f"sha256 {got}",
            fix=f"compare with {origin}, then add to the entry {foundation.name}: 'sha256: {got}', and commit it",
        )
    if got != foundation.sha256.lower():
        raise RetemperError(
            f"Foundation {foundation.name}: {path} is not the file of the catalogue. It was not opened.",
            expected=f"sha256 {foundation.sha256}",
            got=f"sha256 {got}",
            fix="restore the file, or update the entry if you trust the new one",
        )
    return path


def admitted(path: str | Path, sha: str | None, trust_pickle: bool, root: Path | None) -> Path:
    """`weight_files.admitted` for a file that a user names; one with a sha256 of the catalogue needs no word."""
    path = Path(path)
    known = {entry.sha256 for entry in catalogue(root).values()} if root is not None else set()
    if sha is None and known and path.is_file() and sha256(path) in known:
        return path
    return weight_files.admitted(path, sha, trust_pickle)


def _download(foundation: Foundation) -> Path:
    """Fetch the file of a named model into MACE's cache, and return it, unopened."""
    if foundation.loader is None:
        raise RetemperError(f"Foundation {foundation.name} names neither a file nor a loader.", fix=f"edit {CATALOGUE}")
    urls = released.URLS[foundation.loader]
    if foundation.model not in urls:
        raise unknown(f"model of {foundation.loader} (foundation {foundation.name})", foundation.model, urls)
    path = released.cached(foundation.loader, foundation.model)
    if not path.is_file():
        url = urls[foundation.model]
        log.info(f"downloading {url} ({foundation.licence})")
        try:
            released.download(url, path)
        except (OSError, RuntimeError, ValueError) as error:
            raise RetemperError(
                f"Foundation {foundation.name} could not be downloaded: {error}",
                expected=f"a network connection, or the weights in MACE's cache ({path})",
                fix="download it on a machine with a network and copy it there, or use the embedded foundation",
            ) from error
    return path
