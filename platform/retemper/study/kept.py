"""Results of runs on disk: ``studies/results/<key>.json``, each with a checksum, checked where it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retemper.core import sealed


def keep(path: Path, content: dict[str, Any]) -> None:
    """Write a result, or a failure, to ``studies/results/<key>.json``, with its checksum."""
    sealed.write_json(path, path.stem, content)


def load(path: Path) -> dict[str, Any] | None:
    """A result; `None` where there is none. One that is damaged, or of another run, is put aside."""
    found: dict[str, Any] | None = sealed.read_json(path, path.stem, unsealed=True, then="run again")
    return found
