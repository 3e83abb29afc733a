"""Where the structures lie that what is forgotten is measured on, and whose labels they have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ase import Atoms

from retemper.config import pretraining_data
from retemper.config.project import Project
from retemper.data.frames import LABEL_SOURCE


def path(project: Project) -> Path | None:
    """The file that the settings or the foundation's entry name, else what the replay stage kept apart, if anything."""
    named = pretraining_data.retention(project.settings, project.foundation)
    if named is not None:
        return project.root / named[0]
    file = project.replay / f"{pretraining_data.KEPT}.extxyz"
    return file if file.is_file() else None


def labelled_by_foundation(frames: Sequence[Atoms]) -> bool:
    """Whether the labels are the foundation's own predictions: errors are then the drift from it."""
    return any(LABEL_SOURCE in atoms.info for atoms in frames)
