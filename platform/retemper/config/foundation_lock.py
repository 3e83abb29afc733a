"""``foundations/lock.yaml``: what foundations and structures contained at their first use. Later uses are compared.

The file belongs into git. A hash beside the file that it is of proves nothing, one in a history does.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from retemper.config.setting_errors import in_file
from retemper.config.settings import Section, parse
from retemper.config.strict_yaml import read_yaml
from retemper.core.files import atomic_write, locked, require_sha256, sha256
from retemper.core.output import log

LOCK = Path("foundations/lock.yaml")
HEAD = (
    "# Written by retemper: what was fetched or given, as it was at first use. Commit it. Another content is refused.\n"
)


class Content(Section):
    """What a file contained, and where it was."""

    source: str  # address, or path in or outside of the project
    sha256: str
    size: int  # bytes


class Lock(Section):
    foundations: dict[str, Content] = {}  # weights, by what the settings or the catalogue call the foundation
    structures: dict[str, Content] = {}  # published for replay, by their name in the catalogue


def read(root: Path) -> Lock:
    """What is remembered in a project; nothing where nothing was used yet."""
    path = root / LOCK
    return parse(Lock, read_yaml(path), in_file(path, str(LOCK))) if path.is_file() else Lock()


def check(root: Path, kind: str, name: str, path: Path, source: str, known: str | None, trusted_by: str) -> str:
    """Sha256 of a file, the same as it always was: as `known` says, else as at its first use, which this may be.

    Parameters
    ----------
    kind
        Section of the lock: foundations or structures.
    known
        Sha256 that the settings or the catalogue give; then nothing is remembered.
    trusted_by
        Where `known` stands.

    Raises
    ------
    RetemperError
        Another content. The file was not opened.
    """
    if known is not None:
        return _require(name, path, known, trusted_by)
    remembered: dict[str, Content] = getattr(read(root), kind)
    if name not in remembered:
        remembered = _remember(root, kind, name, Content(source=source, sha256=sha256(path), size=path.stat().st_size))
    return _require(name, path, remembered[name].sha256, str(LOCK))


def _require(name: str, path: Path, expected: str, place: str) -> str:
    what = f"{name}: {path} is not what it was. It was not opened."
    fix = f"restore the file, or delete it where it was fetched; if you trust the new one, change {place}"
    return require_sha256(path, expected, what, fix, place)


def _remember(root: Path, kind: str, name: str, content: Content) -> dict[str, Content]:
    """Note a content, unless another process was first; the section then."""
    folder = root / ".cache"
    folder.mkdir(exist_ok=True)
    with locked(folder / "foundations.lock", f"writes {LOCK}"):
        sections = read(root).model_dump()
        if name not in sections[kind]:
            sections[kind][name] = content.model_dump()
            sections[kind] = dict(sorted(sections[kind].items()))
            with atomic_write(root / LOCK) as temporary:
                temporary.write_text(HEAD + yaml.safe_dump({k: v for k, v in sections.items() if v}, sort_keys=False))
            log.info(f"{name}: sha256 {content.sha256} is remembered in {LOCK}; commit it")
        section: dict[str, Content] = getattr(read(root), kind)
    return section
