"""Frames on disk that are used like a list, so that a set need not fit into memory.

Everything that takes a sequence of frames takes these. A frame is built when it is asked for, each time anew:
what is changed in it is lost, and `Store.note` is the way to add to its ``info``.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, overload

import numpy as np
from ase import Atoms

from retemper.core.files import disk_errors

Array = np.ndarray


class _Lazy(Sequence[Atoms]):
    """A sequence of which `_get` makes one element; a slice is a view."""

    @abstractmethod
    def _get(self, index: int) -> Atoms: ...

    @overload
    def __getitem__(self, index: int) -> Atoms: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Atoms]: ...

    def __getitem__(self, index: int | slice) -> Atoms | Sequence[Atoms]:
        if isinstance(index, slice):
            return Picked(self, np.arange(len(self))[index])
        place = int(index) + len(self) if index < 0 else int(index)
        if not 0 <= place < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self._get(place)


class Store(_Lazy):
    """Frames in a nameless file that is gone when the process is. Eight bytes a frame and a note stay in memory.

    Parameters
    ----------
    folder
        Where there is space for it; made if need be.

    Use it in a ``with`` block. A full disk is a `RetemperError`.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by `__exit__`)
        self._ends = array("q", [0])
        self._notes: dict[str, list[Any]] = {}
        self._flushed = True

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, atoms: Atoms) -> int:
        """Add a frame with its arrays and info, without calculator and constraints; returns its index."""
        record = pickle.dumps((atoms.arrays, atoms.info, atoms.cell.array, atoms.pbc), protocol=5)
        with disk_errors(self._folder):
            self._file.write(record)
        self._ends.append(self._ends[-1] + len(record))
        self._flushed = False
        return len(self) - 1

    def note(self, index: int, key: str, value: Any) -> None:
        """From now on ``info[key]`` of this frame is `value`; equal values should be one object."""
        column = self._notes.setdefault(key, [])
        column.extend([None] * (index + 1 - len(column)))
        column[index] = value

    def _get(self, index: int) -> Atoms:
        if not self._flushed:
            with disk_errors(self._folder):
                self._file.flush()
            self._flushed = True
        start, end = self._ends[index], self._ends[index + 1]
        arrays, info, cell, pbc = pickle.loads(os.pread(self._file.fileno(), end - start, start))
        for key, column in self._notes.items():
            if index < len(column) and column[index] is not None:
                info[key] = column[index]
        atoms = Atoms(numbers=arrays.pop("numbers"), positions=arrays.pop("positions"), cell=cell, pbc=pbc, info=info)
        atoms.arrays.update(arrays)
        return atoms


class Picked(_Lazy):
    """The frames `indices` of another sequence, in that order."""

    def __init__(self, frames: Sequence[Atoms], indices: Sequence[int] | Array):
        self.frames = frames
        self.indices = np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def _get(self, index: int) -> Atoms:
        return self.frames[int(self.indices[index])]


class Chain(_Lazy):
    """Several sequences one after the other."""

    def __init__(self, parts: Iterable[Sequence[Atoms]]):
        self.parts = [part for part in parts if len(part)]
        self._ends = list(accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def _get(self, index: int) -> Atoms:
        number = bisect_right(self._ends, index)
        part = self.parts[number]
        return part[index - self._ends[number] + len(part)]
