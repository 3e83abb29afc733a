"""The labelled files of a data set, read once into a store, and whether their units can be true."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.config.foundation_files import place
from retemper.config.project import Project
from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError, unknown
from retemper.data import checks
from retemper.data.frame_store import Picked, Store
from retemper.data.frames import stream_frames
from retemper.data.labels import ignored_warnings, stream_labels
from retemper.data.units import Judged, require_units
from retemper.models import heads
from retemper.prepare.predictor import predictor

ENOUGH = 20  # frames of one file whose units are judged on their own
WITNESSES = 20_000  # frames of one file that its units are judged by, in stretches of
STRETCH = 100

Array = np.ndarray


@dataclass(frozen=True)
class Part:
    """One file: indices of its frames in the store, and what to tell the user."""

    name: str
    frames: Array  # with labels
    rejected: list[int]  # without
    warnings: list[str]


def read(files: Sequence[Path], dataset: Dataset, store: Store) -> list[Part]:
    """Every file once into `store`, with mapped labels; names are those of the settings."""
    if len(set(dataset.all_files)) < len(dataset.all_files):
        raise RetemperError("dataset.files and test_files name a file twice.", got=", ".join(dataset.all_files))
    parts = []
    for path, name in zip(files, dataset.all_files, strict=True):
        frames, rejected, ignored = array("q"), [], Counter[str]()
        for frame, fault, without in stream_labels(partial(stream_frames, path), dataset, name):
            index = store.append(frame)
            ignored.update(without)
            if fault is None:
                frames.append(index)
            else:
                store.note(index, "reason", fault)
                rejected.append(index)
        parts.append(Part(name, np.array(frames), rejected, ignored_warnings(name, ignored)))
    return parts


def leave_out(parts: Sequence[Part], dataset: Dataset, store: Store) -> tuple[list[Part], list[int]]:
    """The files at the level of theory that is taken, and the frames of the others with their reason noted."""
    for name in dataset.levels:
        if name not in dataset.all_files:
            raise unknown("file (dataset.levels)", name, dataset.all_files)
    taken, left = [], []
    for part in parts:
        level = dataset.levels.get(part.name, dataset.level_of_theory)
        if level == dataset.level_of_theory:
            taken.append(part)
        else:
            indices = [*part.frames.tolist(), *part.rejected]
            left += mark(store, dict.fromkeys(indices, f"another level of theory ({level}), by dataset.levels"))
    if not taken:
        raise RetemperError(
            "No file is at dataset.level_of_theory.",
            expected=dataset.level_of_theory,
            got=", ".join(sorted(set(dataset.levels.values()))),
            fix="take one of the levels of dataset.levels as dataset.level_of_theory",
        )
    return taken, left


def judge_units(parts: Sequence[Part], store: Store, project: Project) -> Judged:
    """Units of each file with enough frames, and of all small ones together.

    What the labels leave open is asked of the foundation, unless it is a file of the project that is not there.
    """
    settings, entry = project.settings, project.foundation
    small: list[Atoms] = []
    samples: dict[str, list[Atoms]] = {}
    for part in parts:
        indices = part.frames
        if len(indices) > WITNESSES:  # whole stretches, so that frames near each other in time are among them
            indices = np.concatenate([some[:STRETCH] for some in np.array_split(indices, WITNESSES // STRETCH)])
        sound = [frame for frame in Picked(store, indices) if checks.can_be_measured(frame)]
        if len(sound) >= ENOUGH or len(parts) == 1:
            samples[part.name] = sound
        else:
            small += sound
    if small:
        samples["small files"] = small
    predict = None
    if entry.url is not None or place(entry, project.root).is_file():
        predict = predictor(project.weights, heads.of_foundation(project), settings.finetune.device)
    return require_units(samples, settings.dataset.energy_unit, settings.dataset.length_unit, predict)


def mark(store: Store, reasons: Mapping[int, str | None]) -> list[int]:
    """Note the reasons; the indices of those that have one."""
    for index, reason in reasons.items():
        if reason is not None:
            store.note(index, "reason", reason)
    return [index for index, reason in reasons.items() if reason is not None]
