"""What a sound store is, and a training in it."""

from __future__ import annotations

from pathlib import Path

from retemper.tracking import runs


def start(root: Path, key: str = "k") -> str | None:
    """A training that begins."""
    return runs.start_training(
        {"lr": 0.1}, experiment="test", system="salt", strategy="naive", seed=1, root=root, key=key
    )


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
