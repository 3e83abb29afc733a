"""Which structures of the pretraining domain a project's settings and the foundation's entry name."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from pathlib import Path

from retemper.config import foundation_files, foundations
from retemper.config.foundations import Foundation
from retemper.config.settings import DEFAULT, GENERATED, Keys, Settings
from retemper.core.errors import RetemperError

PUBLISHED = "replay.pools, published"  # what names structures of the catalogue
KEPT = "retention"  # files of the replay stage: what is kept apart where no retention set is named, and its hash


@dataclass(frozen=True)
class PoolSource:
    """One entry of ``replay.pools``; `name` is a file, structures that are published for replay, or `GENERATED`."""

    name: str
    share: float | None
    keys: Keys
    setting: str  # what names it, for messages

    @property
    def generated(self) -> bool:
        return self.name == GENERATED

    @property
    def published(self) -> bool:
        return self.setting == PUBLISHED

    def path(self, root: Path) -> Path:
        """The file; published structures are fetched at first use, and are the same ever after."""
        return (
            foundation_files.structures(foundations.structures()[self.name], root)
            if self.published
            else root / self.name
        )


def pools(settings: Settings, entry: Foundation) -> list[PoolSource]:
    """The pools to replay from; `default` is that of the foundation's entry, or `generated` where it has none.

    Raises
    ------
    RetemperError
        One pool twice.
    """
    sources: list[PoolSource] = []
    for pool in settings.replay.pools:
        name, setting, keys = pool.pool, "replay.pools", pool.keys
        if name in foundations.structures():
            setting = PUBLISHED
            keys = keys if keys.model_fields_set else foundations.structures()[name].keys
        elif name == DEFAULT and entry.pool is not None:
            name, setting = entry.pool, f"pool of foundation {entry.name}"
        elif name == DEFAULT:
            name = GENERATED
        if os.path.normpath(name) in [os.path.normpath(source.name) for source in sources]:
            raise RetemperError(
                f"replay.pools names {name} twice: it is the default of foundation {entry.name}.",
                fix=f"take {DEFAULT} or {name} out of replay.pools",
            )
        sources.append(PoolSource(name, pool.share, keys, setting))
    return sources


def retention(settings: Settings, entry: Foundation) -> tuple[str, str] | None:
    """The file of the retention set and what names it; `None` where structures of the pools are kept apart."""
    if settings.evaluate.retention:
        return settings.evaluate.retention, "evaluate.retention"
    return (entry.retention, f"retention of foundation {entry.name}") if entry.retention else None
