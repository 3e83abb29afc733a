"""Embedded sets as other codes would write them: other keys, other units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write
from conftest import ROOT


def relabelled(
    name: str, path: Path, *, energy: float = 1.0, length: float = 1.0, stress: bool = False, first: int = 0
) -> list[Atoms]:
    """Every third frame of an embedded set under the keys of another code, labels in other units; all free atoms."""
    frames = read(ROOT / f"data/raw/{name}.extxyz.xz", ":")
    free = [frame for frame in frames if len(frame) == 1]
    kept = [frame for frame in frames if len(frame) > 1][first::3]
    for frame in (*free, *kept):
        frame.info["dft_energy"] = frame.info.pop("REF_energy") / energy
        frame.arrays["dft_forces"] = frame.arrays.pop("REF_forces") / (energy / length)
        frame.info.pop("level", None)
        if (label := frame.info.pop("REF_stress", None)) is not None and stress:
            frame.info["dft_virial"] = -np.asarray(label).reshape(3, 3) * frame.cell.volume
    write(path, [*free, *kept])
    return kept
