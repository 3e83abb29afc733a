"""Rounds on disk: ``data/rounds/NNN`` holds what was labelled, what failed, and why each structure was chosen.

``labelled.extxyz`` and ``failed.extxyz`` (with ``info["reason"]``), ``unphysical.extxyz`` (found but not sent to
the oracle), ``round.json`` (models, settings, seeds, calibration, choices), calibration plots and, where the next
round starts from it, ``model.safetensors`` with ``seen.extxyz``, all structures that it was trained on. DVC
tracks each folder.
"""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.data.frames import read_frames
from retemper.records.round import Round

FOLDER = Path("data/rounds")  # of a project
MODEL = weight_files.NAME  # the weights that explored
FORMER = "model.model"  # the same, as a pickle, of an earlier version
SEEN = "seen.extxyz"  # without labels
RECORD = "round.json"


def name(number: int) -> str:
    """Folder of a round."""
    return f"{number:03d}"


def numbers(folder: Path) -> list[int]:
    """Rounds that are in `folder`, in order; those of which DVC knows but has no files here are an error."""
    tracked = {int(path.stem) for path in folder.glob("*.dvc") if path.stem.isdigit()}
    present = {int(path.name) for path in folder.glob("[0-9]*") if path.is_dir() and (path / RECORD).is_file()}
    if tracked - present:
        raise RetemperError(
            f"Round {min(tracked - present)} is tracked by DVC but its files are not here.",
            fix="dvc pull data/rounds/*.dvc",
        )
    return sorted(present)


def next_number(folder: Path) -> int:
    """Number after the last round."""
    return max(numbers(folder), default=0) + 1


def read(folder: Path, number: int) -> Round:
    """What was chosen in a round, and why."""
    return Round.read(folder / name(number) / RECORD)


def last_model(folder: Path) -> Path | None:
    """Weights that explored in the last round that kept them; `None` before."""
    for number in reversed(numbers(folder)):
        place = folder / name(number)
        if (place / MODEL).is_file():
            return place / MODEL
        if (place / FORMER).is_file():
            raise RetemperError(
                f"Round {number} kept its weights in the form of earlier releases, {FORMER}.",
                expected=MODEL,
                fix=f"retemper convert {place / FORMER} {place / MODEL}, "
                f"delete {FORMER}, then dvc add {FOLDER / name(number)}",
            )
    return None


def seen(folder: Path) -> list[Atoms]:
    """Structures that the weights of `last_model` were trained on, those of their start included."""
    model = last_model(folder)
    path = None if model is None else model.with_name(SEEN)
    return read_frames(path) if path is not None and path.is_file() else []


def frames(folder: Path, number: int, which: str = "labelled") -> list[Atoms]:
    """Structures of a round: labelled, failed or unphysical."""
    path = folder / name(number) / f"{which}.extxyz"
    return read_frames(path) if path.is_file() and path.stat().st_size else []
