"""The stage e0s on frames that are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import prepared
import pytest
from ase import Atoms

from retemper.data.frames import write_frames
from retemper.prepare import e0s
from retemper.records.e0s import ReferenceEnergies

Diagnose = Callable[..., ReferenceEnergies]


@pytest.fixture
def diagnose(tiny_model: Path, tmp_path: Path) -> Diagnose:
    def run(train: list[Atoms], valid: list[Atoms], free: list[Atoms], **options: object) -> ReferenceEnergies:
        project = prepared.project(tmp_path, tiny_model, e0s=options)
        for name, frames in (("train", train), ("valid", valid), ("isolated", free)):
            write_frames(project.structures(name), frames)
        return e0s.run(project)

    return run
