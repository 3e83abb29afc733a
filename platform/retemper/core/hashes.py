"""Content of files by sha256, remembered: a file that did not change is not read again."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from retemper.core.files import atomic_write, digest, sha256

SETTLED = 2.0  # s; a younger file may change again within the resolution of its time stamps


class Hashes:
    """A memory of hashes in one file. Each is trusted while path, inode, size and time stamps are the same.

    The time of the last change of status counts too: a program that puts the old modification time back cannot set it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[str, list[object]] = self._read()
        self.used: dict[str, list[object]] = {}
        self.computed = 0  # files that had to be read

    def _read(self) -> dict[str, list[object]]:
        """What an earlier process remembered; a file that is damaged is as good as none."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def of(self, path: Path) -> str:
        """Hex sha256 of a file; for a folder, a hash over names and contents of all files in it."""
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.is_file()]
            return digest([(file.relative_to(path).as_posix(), self.of(file)) for file in files])
        place = os.path.realpath(path)
        status = os.stat(place)
        state = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        remembered = self.known.get(place)
        if isinstance(remembered, list) and remembered[:-1] == state:
            self.used[place] = remembered
            return str(remembered[-1])
        now = time.time()
        self.computed += 1
        value = sha256(place)
        if now - max(status.st_mtime, status.st_ctime) > SETTLED:
            self.used[place] = [*state, value]
        return value

    def save(self) -> None:
        """Remember what was asked for; the rest is forgotten."""
        if self.used != self.known:
            with atomic_write(self.path) as temporary:
                temporary.write_text(json.dumps(self.used, indent=0), encoding="utf-8")
            self.known = dict(self.used)
