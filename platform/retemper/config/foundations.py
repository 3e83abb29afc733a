"""The catalogue of foundation models: those that come with retemper, and a project's own beside them.

``foundations.yaml`` beside this module has the released ones, ``foundations/foundations.yaml`` those of the project.
What the settings call a foundation is an entry of either, the path of a file, or an address.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, model_validator

from retemper.config.licences import Licence
from retemper.config.setting_errors import Place, in_file
from retemper.config.settings import Keys, Section, Settings, parse_named
from retemper.config.strict_yaml import read_yaml
from retemper.core import weight_files
from retemper.core.errors import RetemperError, unknown
from retemper.core.files import project_root

CATALOGUE = Path("foundations/foundations.yaml")
SHIPPED = Path(__file__).with_name("foundations.yaml")
SUFFIXES = (".model", weight_files.SUFFIX, ".pt", ".pth")  # of files of weights
NOT_SAID = "not said"  # of a file without an entry: level of theory, licence
SERVED = ("ScaleShiftMACE", "MACE")  # classes of models, by MACE's names
HUB = re.compile(r"hf://(?P<repo>[^/@#]+/[^/@#]+)(@(?P<revision>[^/#]+))?/(?P<file>[^#]+)")
Kind = TypeVar("Kind", bound=Section)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]


class Foundation(Section):
    """One entry. `name` is its key in the catalogue, or what the settings have instead of one."""

    name: str
    about: str
    level_of_theory: str  # of the labels of `head`
    licence: str
    citation: str
    elements: str | None = None  # "H Li B ..."; null: those of the file
    file: str | None = None  # model in the project, or elsewhere: relative to the project's root, or absolute
    url: str | None = None  # where it is fetched from
    sha256: Sha256 | None = None  # of the file; null: what it was at first use (foundations/lock.yaml)
    mace: str | None = None  # function and name by which mace-torch has it
    kind: str | None = None  # MACE's class, where it is none of `SERVED`: refused before it is fetched
    head: str | None = None  # head to use of a multihead model
    heads: dict[str, str] | None = None  # level of theory by head, where it has several and they are known
    replay: str | None = None  # structures of the catalogue that are published for it
    pool: str | None = None  # pretraining structures with labels: default replay pool
    retention: str | None = None  # held-out structures of the pretraining distribution

    @model_validator(mode="after")
    def _one_place(self) -> Foundation:
        if (self.file is None) == (self.url is None):
            raise ValueError("have exactly one of file and url")
        return self

    @property
    def served(self) -> bool:
        """Whether models of this class are trained and predicted with, as far as the entry says."""
        return self.kind is None or self.kind in SERVED


class Structures(Section):
    """Labelled structures that are published for replay. `name` is their key in the catalogue."""

    name: str
    about: str
    url: str
    level_of_theory: str
    keys: Keys
    citation: str
    sha256: Sha256 | None = None


# ------------------------------------------------------------------ entries


@functools.cache
def _content() -> dict[str, Any]:
    return read_yaml(SHIPPED)


@functools.cache
def _shipped() -> tuple[dict[str, Foundation], dict[str, Structures], dict[str, Licence]]:
    content = _content()
    groups = {name: " ".join(symbols.split()) for name, symbols in content["elements"].items()}
    for entry in content["foundations"].values():
        if (group := entry.get("elements")) in groups:
            entry["elements"] = groups[group]
    place = in_file(SHIPPED)
    return (
        _entries(Foundation, content["foundations"], place, "foundations"),
        _entries(Structures, content["structures"], place, "structures"),
        _entries(Licence, content["licences"], place, "licences"),
    )


def _entries(kind: type[Kind], content: Mapping[str, Any], place: Place, *section: str) -> dict[str, Kind]:
    def parsed(name: str) -> Kind:
        return parse_named(kind, name, content[name], lambda location: place((*section, name, *location)))

    return {name: parsed(name) for name in content}


def shipped() -> dict[str, Foundation]:
    """The released foundations, by name."""
    return dict(_shipped()[0])


def structures() -> dict[str, Structures]:
    """The structures that are published for replay, by name."""
    return dict(_shipped()[1])


def catalogue(root: Path | None = None) -> dict[str, Foundation]:
    """All entries by name: those of the project, then the released ones.

    Raises
    ------
    RetemperError
        An entry of the project has the name of a released foundation.
    """
    path = (root or project_root()) / CATALOGUE
    place = in_file(path, str(CATALOGUE))
    entries = _entries(Foundation, _of_project(path), place)
    for name in entries.keys() & _shipped()[0].keys():
        raise RetemperError(
            f"{place((name,))}: {name} is a foundation that comes with retemper.",
            fix="give the entry another name, or delete it to use the released one",
        )
    return {**entries, **_shipped()[0]}


def _of_project(path: Path) -> dict[str, Any]:
    """The entries of a project; a file with nothing but comments has none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return read_yaml(path) if any(line.strip() and not line.lstrip().startswith("#") for line in lines) else {}


def find(name: str, root: Path | None = None) -> Foundation:
    """The foundation that settings call `name`: an entry, a file, or an address; an unknown name lists the options."""
    if "://" in name:
        return _of_address(name)
    entries = catalogue(root)
    if name in entries:
        return entries[name]
    if "/" in name or name.endswith(SUFFIXES):
        return _without_entry(name, "a file of the user's", file=name)
    raise unknown("foundation", name, entries)


def of_settings(settings: Settings, root: Path | None = None) -> Foundation:
    """The foundation of the settings, with the head that they name."""
    return with_head(find(settings.foundation, root), settings.head)


def with_head(entry: Foundation, head: str | None) -> Foundation:
    """`entry` with another head and the level of theory of that; `None`: as it is."""
    if head is None:
        return entry
    level = (entry.heads or {}).get(head, entry.level_of_theory)
    return entry.model_copy(update={"head": head, "level_of_theory": level})


def _without_entry(name: str, about: str, **where: str | None) -> Foundation:
    said = dict.fromkeys(("level_of_theory", "licence", "citation"), NOT_SAID)
    return Foundation.model_validate({"name": name, "about": about, **said, **where})


def _of_address(name: str) -> Foundation:
    """``https://.../x.model``, with ``#sha256=...`` where it is known, or ``hf://org/repo/file`` of Hugging Face."""
    url, _, fragment = name.partition("#")
    key, _, checksum = fragment.partition("=")
    hub = HUB.fullmatch(url)
    if hub:
        url = f"https://huggingface.co/{hub['repo']}/resolve/{hub['revision'] or 'main'}/{hub['file']}"
    known = re.fullmatch("[0-9a-fA-F]{64}", checksum) if key == "sha256" else None
    if not url.startswith(("https://", "http://")) or (fragment and not known):
        raise RetemperError(
            f"The foundation {name} is no address of a file.",
            expected="https://example.org/x.model, hf://organisation/repository/x.model, hf://organisation/repository@"
            "revision/x.model, each with #sha256= and 64 digits where it is known",
        )
    if url.startswith("http://") and not known:
        raise RetemperError(
            f"The foundation {name} comes over http, where anyone on the way can change it.",
            fix="give an https address, or add #sha256= and the sum that its author gives",
        )
    return _without_entry(name, "fetched from an address", url=url, sha256=checksum or None)


def unserved(kind: str, origin: str) -> RetemperError:
    """The error for a model of a class that is none of `SERVED`; `origin` is what the user calls the model."""
    reason = _content()["unserved"].get(kind)
    return RetemperError(
        f"{origin} is a {kind}, which retemper neither trains nor predicts with" + (f": {reason}." if reason else "."),
        expected=f"a {' or '.join(SERVED)}",
        got=kind,
        fix="use a foundation of another architecture: `retemper foundations` lists them",
    )


def licence(entry: Foundation) -> Licence | None:
    """The licence of what is fetched for an entry; `None` where it is not known, or nothing is fetched."""
    return _shipped()[2].get(entry.licence) if entry.url is not None else None


def published(entry: Foundation) -> Structures | None:
    """The structures that are published for replay with an entry; `None` where there are none.

    Raises
    ------
    RetemperError
        The entry names some that the catalogue does not have.
    """
    if entry.replay is None:
        return None
    known = _shipped()[1]
    if entry.replay not in known:
        raise unknown(f"published structures (replay of {entry.name})", entry.replay, known)
    return known[entry.replay]
