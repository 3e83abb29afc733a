"""An oracle that fails as it is told to, and what it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retemper.config.settings import Acquire, Plugin


def oracle(call: str) -> Plugin:
    return Plugin(name="ase", options={"calculator": f"faulty:{call}", "level_of_theory": "EMT"})


def options(call: str, **changes: Any) -> Acquire:
    return Acquire(oracle=oracle(call), **{"workers": 2, "timeout": 60.0, **changes})


def count(note: Path, what: str) -> dict[int, int]:
    lines = [line.split() for line in note.read_text().splitlines()] if note.exists() else []
    found = [int(number) for word, number in lines if word == what]
    return {number: found.count(number) for number in found}
