"""Results of runs on disk: ``studies/results/<key>.json``, each with a checksum, checked where it is read."""

from __future__ import annotations

from pathlib import Path

from retemper.core import sealed
from retemper.records import result
from retemper.records.result import Failure, Result


def keep(path: Path, record: Result | Failure) -> None:
    """Write a result, or a failure, to ``studies/results/<key>.json``, with its checksum."""
    sealed.write_json(path, path.stem, record.model_dump(mode="json"))


def load(path: Path) -> Result | Failure | None:
    """A result; `None` where there is none. One that is damaged, or of another run, is put aside."""
    content = sealed.read_json(path, path.stem, unsealed=True, then="run again")
    return None if content is None else result.read(content, path)
