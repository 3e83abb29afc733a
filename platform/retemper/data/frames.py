"""Labelled structures on disk: extxyz with ``REF_energy``, ``REF_forces``, ``REF_stress``.

Units are eV, eV/A and eV/A^3 (ASE's sign: positive stress is tension). Every file that
retemper writes has these keys; `retemper.prepare.dataset` maps a user's keys and units to them. Charge and
spin are under `retemper.data.charge`'s spelling in every frame that is read and in every file that is written.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.io import iread, read, write
from ase.io.formats import filetype, open_with_compression

from retemper.core.errors import RetemperError
from retemper.core.files import atomic_write
from retemper.data import charge, frame_weights

ENERGY, FORCES, STRESS = "REF_energy", "REF_forces", "REF_stress"
LABEL_SOURCE = "label_source"  # info key of who labelled a frame, where that was a foundation
BLOCK = 500  # frames that are parsed and written at a time
LINES = 50_000  # and lines, for large frames


def read_frames(path: str | Path) -> list[Atoms]:
    """All frames of a file that ASE reads (``.gz`` and ``.xz`` included); ``run@:30`` is a file of that very name.

    A missing, empty, truncated or unreadable file is a `RetemperError`, as is a frame that contradicts itself in its
    charge or spin.
    """
    return list(stream_frames(path))


def stream_frames(path: str | Path) -> Iterator[Atoms]:
    """The frames of `read_frames` one after the other; of an extxyz file at most `BLOCK` are in memory.

    Formats that ASE reads whole are held whole.
    """
    path = Path(path)
    if not path.is_file():
        name, at, slice_ = path.name.rpartition("@")
        fix = "check the path in params.yaml, or `dvc pull`"
        if at and path.with_name(name).is_file():
            fix = f"a name is the whole name of a file here: write the frames {slice_} of {name} to a file of their own"
        raise RetemperError(f"{path} does not exist.", fix=fix)
    if path.stat().st_size == 0:
        raise RetemperError(f"{path} is empty.", expected="at least one structure")
    number = 0
    try:
        for frame in _parse(path):
            settled = charge.settle(frame, f"{path}:{number}")
            number += 1
            yield settled
    except RetemperError:
        raise
    except Exception as error:  # ASE's readers raise nearly anything on a broken file
        raise RetemperError(
            f"{path} cannot be read: {type(error).__name__}: {error}",
            expected="a complete file in a format that ASE reads",
            fix="a truncated file often ends in the middle of a frame: cut it there or copy it again",
        ) from error
    if not number:
        raise RetemperError(f"{path} holds no structures.", expected="at least one")


def _parse(path: Path) -> Iterator[Atoms]:
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix)
    kind = filetype(str(path)) if opener is None else filetype(path.stem, read=False)
    if kind == "extxyz":
        with (opener or open)(path, "rt") as file:
            yield from _extxyz(path, file)
    elif opener is None:
        yield from iread(path, index=":", format=kind, do_not_split_by_at_sign=True)
    else:  # unpacked in memory: ASE seeks in the file, and each seek would unpack it again
        with opener(path, "rt") as file:
            text = file.read()
        yield from iread(io.StringIO(text), index=":", format=kind)


def _extxyz(path: Path, file: TextIO) -> Iterator[Atoms]:
    """Frames of extxyz text, cut here and parsed by ASE, which would keep an index of the whole file.

    ASE also stops silently at a truncated last frame; here that is an error.
    """
    lines: list[str] = []
    waiting = complete = 0
    header = file.readline()
    while header.strip():
        try:
            count = int(header) + 1  # atoms and comment
        except ValueError:
            raise ValueError(
                f"expected a number of atoms after {complete} frames, but got {header.strip()!r}"
            ) from None
        body = list(islice(file, count))
        if len(body) < count:
            raise _truncation_error(path, complete, 1 + len(body))
        lines += [header, *body]
        header = file.readline()
        while header.lstrip().startswith("VEC"):  # a cell below the atoms
            lines.append(header)
            header = file.readline()
        waiting, complete = waiting + 1, complete + 1
        if waiting == BLOCK or len(lines) > LINES:
            yield from read(io.StringIO("".join(lines)), index=":", format="extxyz")
            lines, waiting = [], 0
    if lines:
        yield from read(io.StringIO("".join(lines)), index=":", format="extxyz")
    if trailing := sum(1 for line in file if line.strip()):
        raise _truncation_error(path, complete, trailing)


def _truncation_error(path: Path, complete: int, lines: int) -> RetemperError:
    return RetemperError(
        f"{path} is truncated: {complete} whole frames, then {lines} lines of a broken one.",
        fix="cut the broken last frame off, or copy the file again",
    )


def in_blocks(frames: Iterable[Atoms], size: int) -> Iterator[list[Atoms]]:
    """Lists of `size` frames, the last one shorter."""
    stream = iter(frames)
    while block := list(islice(stream, size)):
        yield block


def write_frames(path: str | Path, frames: Iterable[Atoms]) -> None:
    """Write frames as extxyz, whole or not at all; calculators are not written. The frames stay as they are."""
    with atomic_write(path) as temporary, open_with_compression(str(temporary), "w") as file:
        for block in in_blocks(frames, BLOCK):
            for k, frame in enumerate(block):
                if frame.calc is not None or "charge" in frame.info or "spin" in frame.info:
                    block[k] = charge.settle(frame.copy())
            write(file, block, format="extxyz")


def structure_hash(atoms: Atoms) -> str:
    """Hash of species, positions, cell and periodicity, rounded to 1e-6 A, charge and spin. Labels do not count.

    Neutral and of multiplicity 1 is the same as not said.
    """
    state = charge.special(atoms)
    return _digest([*_geometry(atoms), repr(state).encode()] if state else _geometry(atoms))


def geometry_hash(atoms: Atoms) -> str:
    """`structure_hash` of the neutral structure: charge and spin do not count."""
    return _digest(_geometry(atoms))


def _geometry(atoms: Atoms) -> list[bytes]:
    return [
        atoms.numbers.astype("<i4").tobytes(),
        (atoms.positions.round(6) + 0.0).astype("<f8").tobytes(),
        (atoms.cell.array.round(6) + 0.0).astype("<f8").tobytes(),
        atoms.pbc.tobytes(),
    ]


def _digest(parts: list[bytes]) -> str:
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]


def labels_hash(frames: Iterable[Atoms]) -> str:
    """Hash of structures, their labels and the weights of these, in order: the identity of a labelled set."""
    total = LabelsHash()
    for atoms in frames:
        total.add(atoms)
    return total.digest()


class LabelsHash:
    """`labels_hash` frame by frame."""

    def __init__(self) -> None:
        self._total = hashlib.sha256()

    def add(self, atoms: Atoms) -> None:
        self._total.update(structure_hash(atoms).encode())
        self._total.update(np.float64(round(float(atoms.info.get(ENERGY, np.nan)), 6)).tobytes())
        for value in (atoms.arrays.get(FORCES), atoms.info.get(STRESS)):
            if value is not None:
                self._total.update((np.asarray(value, dtype="<f8").round(6) + 0.0).tobytes())
        if (weights := frame_weights.weights_of(atoms)) != (1.0, 1.0, 1.0):
            self._total.update(np.asarray(weights, dtype="<f8").tobytes())

    def digest(self) -> str:
        return self._total.hexdigest()[:16]


def elements(frames: Iterable[Atoms]) -> list[str]:
    """Sorted chemical symbols that occur in `frames`."""
    return sorted({symbol for atoms in frames for symbol in atoms.symbols})


def is_isolated_atom(atoms: Atoms) -> bool:
    """Whether a frame is a free atom (one atom, no periodicity): data for E0s, not for training."""
    return len(atoms) == 1 and not atoms.pbc.any()


def stress_matrix(value: Any) -> np.ndarray:
    """A stress label of shape (3, 3), (9,) or Voigt (6,: xx yy zz yz xz xy) as [3, 3]."""
    array = np.asarray(value, dtype=float)
    if array.size == 6:
        xx, yy, zz, yz, xz, xy = array.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return array.reshape(3, 3)
