"""Labelled structures on disk: extxyz with ``REF_energy``, ``REF_forces``, ``REF_stress``.

Units are eV, eV/A and eV/A^3 (ASE's sign: positive stress is tension). Every file that
retemper writes has these keys; `retemper.dataset` maps a user's keys and units to them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write
from ase.io.formats import filetype

from retemper.errors import RetemperError
from retemper.files import atomic_write

ENERGY, FORCES, STRESS = "REF_energy", "REF_forces", "REF_stress"


def read_frames(path: str | Path) -> list[Atoms]:
    """All frames of a file that ASE reads (``.gz`` and ``.xz`` included).

    A missing, empty, truncated or unreadable file is a `RetemperError`.
    """
    path = Path(path)
    if not path.is_file():
        raise RetemperError(f"{path} does not exist.", fix="check the path in params.yaml, or `dvc pull`")
    if path.stat().st_size == 0:
        raise RetemperError(f"{path} is empty.", expected="at least one structure")
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix)
    frames: Any
    try:
        if opener is None:
            frames = read(path, index=":")
        else:  # unpacked in memory: ASE seeks in the file, and each seek would unpack it again
            with opener(path, "rt") as file:
                text = file.read()
            frames = read(io.StringIO(text), index=":", format=filetype(path.stem, read=False))
    except Exception as error:  # ASE's readers raise nearly anything on a broken file
        raise RetemperError(
            f"{path} cannot be read: {type(error).__name__}: {error}",
            expected="a complete file in a format that ASE reads",
            fix="a truncated file often ends in the middle of a frame: cut it there or copy it again",
        ) from error
    if not frames:
        raise RetemperError(f"{path} holds no structures.", expected="at least one")
    if ".xyz" in path.name or ".extxyz" in path.name:
        _complete_extxyz(path, frames)
    return list(frames)


def _complete_extxyz(path: Path, frames: Sequence[Atoms]) -> None:
    """ASE stops silently at a truncated last frame: compare line counts."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opener(path, "rt") as file:
        lines = sum(1 for line in file if line.strip())
    blank_comments = sum(len(frame) + 2 for frame in frames)
    if lines > blank_comments:
        raise RetemperError(
            f"{path} is truncated: {len(frames)} whole frames, then {lines - blank_comments} lines of a broken one.",
            fix="cut the broken last frame off, or copy the file again",
        )


def write_frames(path: str | Path, frames: Iterable[Atoms]) -> None:
    """Write frames as extxyz, whole or not at all; calculators are not written."""
    plain = []
    for frame in frames:
        copy = frame.copy()
        copy.calc = None
        plain.append(copy)
    with atomic_write(path) as temporary:
        if plain:
            write(temporary, plain, format="extxyz")
        else:
            temporary.write_text("")


def structure_hash(atoms: Atoms) -> str:
    """Hash of species, positions, cell and periodicity, rounded to 1e-6 A. Labels do not count."""
    parts = (
        atoms.numbers.astype("<i4").tobytes(),
        (atoms.positions.round(6) + 0.0).astype("<f8").tobytes(),
        (atoms.cell.array.round(6) + 0.0).astype("<f8").tobytes(),
        atoms.pbc.tobytes(),
    )
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]


def labels_hash(frames: Iterable[Atoms]) -> str:
    """Hash of structures and their labels, in order: the identity of a labelled set."""
    total = hashlib.sha256()
    for atoms in frames:
        total.update(structure_hash(atoms).encode())
        total.update(np.float64(round(float(atoms.info.get(ENERGY, np.nan)), 6)).tobytes())
        for value in (atoms.arrays.get(FORCES), atoms.info.get(STRESS)):
            if value is not None:
                total.update((np.asarray(value, dtype="<f8").round(6) + 0.0).tobytes())
    return total.hexdigest()[:16]


def elements(frames: Iterable[Atoms]) -> list[str]:
    """Sorted chemical symbols that occur in `frames`."""
    return sorted({symbol for atoms in frames for symbol in atoms.symbols})


def is_isolated_atom(atoms: Atoms) -> bool:
    """Whether a frame is a free atom (one atom, no periodicity): data for E0s, not for training."""
    return len(atoms) == 1 and not atoms.pbc.any()
