"""What retemper last gave to a project, kept in it: the common ancestor of the user's files and newer ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from retemper.core.version import __version__
from retemper.records.record import Part, Record

FILE = Path(".retemper/base.json")  # not a folder of copies: DVC would take a second dvc.yaml for stages


class Given(Part):
    """One file as it was given: its text, or the hash of what is no text."""

    sha256: str
    text: str | None = None
    offered: str | None = None  # text of a later one, which lies beside the user's as FILE.new until that is settled

    @classmethod
    def of(cls, content: bytes) -> Given:
        """What to remember of a file's content."""
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = None
        return cls(sha256=hashlib.sha256(content).hexdigest(), text=text)

    def same(self, content: bytes) -> bool:
        """Whether a file still is as it was given."""
        return hashlib.sha256(content).hexdigest() == self.sha256


class Base(Record):
    """All files that a project was given, by path."""

    STAGE = "init"

    version: str  # of retemper
    files: dict[str, Given]

    @classmethod
    def fix(cls) -> str:
        """How to get a broken one back."""
        return f"git checkout {FILE}"

    @classmethod
    def given(cls, files: Mapping[str, bytes]) -> Self:
        """Of files that are written now."""
        return cls(version=__version__, files={name: Given.of(content) for name, content in sorted(files.items())})
