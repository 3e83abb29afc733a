"""Pickles that leave a mark when they are opened, and the folder of a version's artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retemper.tracking.store import connect


class Evil:
    """A pickle that leaves a mark when it is opened."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def evil(path: Path, mark: Path) -> Path:
    import torch

    torch.save(Evil(mark), path)
    return path


def stored(root: Path, number: str) -> Path:
    """Folder of a version's artifact in the store."""
    client: Any = connect(root)
    model_id = client.get_model_version("salt", number).source.removeprefix("models:/")
    place = client.get_logged_model(model_id).artifact_location
    return Path(place.removeprefix("file://"))
