"""Files that someone or something damaged."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, place: float) -> None:
    """Turn one bit at `place` (a share of the length)."""
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 1
    path.write_bytes(bytes(data))
