"""Which head of the project's foundation is used: where training starts, who labels, what forgetting is measured by."""

from __future__ import annotations

from pathlib import Path

from retemper.config.foundations import Foundation
from retemper.config.project import Project
from retemper.core.errors import RetemperError, unknown
from retemper.models import mace

DEFAULT = "Default"  # the head that MACE calls so is the one to use where none is named


def of_foundation(project: Project) -> str:
    """The head that ``head`` of ``params.yaml`` names, else the catalogue's entry, else the only one or the default.

    Raises
    ------
    RetemperError
        The model has no head of this name, or several of which none is named.
    """
    return of_entry(project.foundation, project.weights)


def of_entry(entry: Foundation, weights: Path) -> str:
    """The head of an entry of the catalogue, as `of_foundation`; `weights` is its file.

    Raises
    ------
    RetemperError
        As `of_foundation`.
    """
    available = mace.heads(weights)
    if entry.head in available:
        return str(entry.head)
    if entry.head is not None:
        raise unknown(f"head of foundation {entry.name}", entry.head, available)
    if len(available) == 1:
        return available[0]
    if DEFAULT in available:
        return DEFAULT
    raise RetemperError(
        f"Foundation {entry.name} has {len(available)} heads, and none is chosen.",
        expected=f"one of {', '.join(_with_level(entry, head) for head in available)}",
        fix="set head in params.yaml, or in its entry: it is where training starts, it labels, and forgetting is "
        "measured by it",
    )


def kept_alive(project: Project) -> list[str]:
    """The heads of ``replay.heads``: others of the foundation that go on being replayed.

    Raises
    ------
    RetemperError
        The model has no head of this name, or it is the one that is replayed anyway.
    """
    available, chosen = mace.heads(project.weights), of_foundation(project)
    for head in project.settings.replay.heads:
        if head not in available:
            raise unknown(f"head of foundation {project.foundation.name} (replay.heads)", head, available)
        if head == chosen:
            raise RetemperError(
                f"replay.heads names {head}, which is replayed anyway.",
                expected="further heads of the foundation",
                fix=f"take {head} out of replay.heads",
            )
    return list(project.settings.replay.heads)


def _with_level(entry: Foundation, head: str) -> str:
    """A head with its level of theory, where the catalogue knows it."""
    level = (entry.heads or {}).get(head)
    return head if level is None else f"{head} ({level})"
