"""Where something was made: commit, machine and versions."""

from __future__ import annotations

from retemper.records.record import Part


class Commit(Part):
    commit: str | None  # None outside a repository
    dirty: bool | None  # whether files differed from it


class Origin(Part):
    git: Commit
    machine: dict[str, str]
    versions: dict[str, str]  # of packages
