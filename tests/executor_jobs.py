"""What jobs of the executor's tests do."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from retemper.core import executor
from retemper.core.errors import RetemperError


class OddError(Exception):
    """One that pickle writes and cannot read."""

    def __init__(self, one: str, *, two: str):
        super().__init__(one)


def say(number: int) -> int:
    for k in range(number):
        executor.report(k)
    return number


def fail() -> None:
    raise RetemperError("It broke.", fix="mend it")


def fail_oddly() -> None:
    raise OddError("no", two="no")


def die_once(mark: str) -> str:
    if Path(mark).exists():
        return "alive"
    Path(mark).touch()
    os._exit(7)


def family(note: str) -> None:
    """Hangs, with two children, one of which has a session of its own; writes all three numbers."""
    one = subprocess.Popen(["sleep", "300"])
    two = subprocess.Popen(["sleep", "300"], start_new_session=True)
    Path(note).write_text(f"{os.getpid()} {one.pid} {two.pid}")
    time.sleep(300)


def numbers(note: Path, count: int) -> list[int]:
    """What `family` wrote, once it is whole."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        found = note.read_text().split() if note.exists() else []
        if len(found) == count:
            return [int(one) for one in found]
        time.sleep(0.05)
    raise AssertionError(found)
