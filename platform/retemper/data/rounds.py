"""Rounds on disk: ``data/rounds/NNN`` holds what was labelled, what failed, and why each structure was chosen.

``labelled.extxyz`` and ``failed.extxyz`` (with ``info["reason"]``), ``unphysical.extxyz`` (found but not sent to
the oracle), ``round.json`` (models, settings, seeds, calibration, choices), calibration plots and, where the next
round starts from it, ``model.safetensors`` with ``seen.extxyz``, all structures that it was trained on. DVC
tracks each folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms

from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import read_json
from retemper.data.frames import read_frames

FOLDER = Path("data/rounds")
WORK = Path(".cache/rounds")
MODEL = weight_files.NAME  # the weights that explored
FORMER = "model.model"  # the same, as a pickle, of an earlier version
SEEN = "seen.extxyz"  # without labels


def name(number: int) -> str:
    """Folder of a round."""
    return f"{number:03d}"


def numbers(root: Path) -> list[int]:
    """Rounds that are there, in order; those of which DVC knows but has no files here are an error."""
    folder = root / FOLDER
    known = {int(path.stem) for path in folder.glob("*.dvc") if path.stem.isdigit()}
    here = {int(path.name) for path in folder.glob("[0-9]*") if path.is_dir() and (path / "round.json").is_file()}
    if known - here:
        raise RetemperError(
            f"Round {min(known - here)} is tracked by DVC but its files are not here.", fix="dvc pull data/rounds/*.dvc"
        )
    return sorted(here)


def about(root: Path, number: int) -> dict[str, Any]:
    """Content of ``round.json``."""
    content: dict[str, Any] = read_json(root / FOLDER / name(number) / "round.json")
    return content


def last_model(root: Path) -> Path | None:
    """Weights that explored in the last round that kept them; `None` before."""
    for number in reversed(numbers(root)):
        folder = root / FOLDER / name(number)
        if (folder / MODEL).is_file():
            return folder / MODEL
        if (folder / FORMER).is_file():
            raise RetemperError(
                f"Round {number} kept its weights as a pickle, {FORMER}, which is not opened.",
                expected=MODEL,
                fix=f"retemper convert {folder / FORMER} {folder / MODEL} --trust-pickle if the round is your own, "
                f"delete {FORMER}, then dvc add {FOLDER / name(number)}",
            )
    return None


def seen(root: Path) -> list[Atoms]:
    """Structures that the weights of `last_model` were trained on, those of their start included."""
    model = last_model(root)
    path = None if model is None else model.with_name(SEEN)
    return read_frames(path) if path is not None and path.is_file() else []


def frames(root: Path, number: int, which: str = "labelled") -> list[Atoms]:
    """Structures of a round: labelled, failed or unphysical."""
    path = root / FOLDER / name(number) / f"{which}.extxyz"
    return read_frames(path) if path.is_file() and path.stat().st_size else []
