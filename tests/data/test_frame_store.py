"""Frames on disk: the same frames, the same checks, and memory that does not grow with the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from conftest import ROOT

from retemper.core.errors import RetemperError
from retemper.data import checks
from retemper.data.duplicates import near_pairs
from retemper.data.frame_store import Chain, Picked, Store
from retemper.data.frames import labels_hash, read_frames, stream_frames, write_frames
from retemper.data.grouping import group_frames

EMBEDDED = [ROOT / f"data/raw/{name}.extxyz.xz" for name in ("nacl", "molecules")]


def same(a: Atoms, b: Atoms) -> bool:
    arrays = a.arrays.keys() == b.arrays.keys() and all(np.array_equal(a.arrays[k], b.arrays[k]) for k in a.arrays)
    info = a.info.keys() == b.info.keys() and all(np.array_equal(a.info[k], b.info[k]) for k in a.info)
    return bool(arrays and info and np.array_equal(a.cell.array, b.cell.array) and (a.pbc == b.pbc).all())


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.name)
def test_streams_are_what_ase_reads(path: Path, tmp_path: Path) -> None:
    expected = ase.io.read(path, index=":")
    found = list(stream_frames(path))
    assert len(found) == len(expected) > 200
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    write_frames(tmp_path / "ours.extxyz", iter(found))
    ase.io.write(tmp_path / "theirs.extxyz", expected, format="extxyz")
    assert (tmp_path / "ours.extxyz").read_bytes() == (tmp_path / "theirs.extxyz").read_bytes()


def test_a_broken_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    write_frames(path, [molecule("H2O")] * 3)
    whole = path.read_text()
    path.write_text("\n".join(whole.splitlines()[:-1]) + "\n")
    with pytest.raises(RetemperError, match="is truncated: 2 whole frames, then 4 lines of a broken one"):
        read_frames(path)
    path.write_text(whole + "\n\nO 0 0 0\n")
    with pytest.raises(RetemperError, match="is truncated: 3 whole frames, then 1 lines of a broken one"):
        read_frames(path)
    path.write_text(whole + "water\n")
    with pytest.raises(RetemperError, match="expected a number of atoms after 3 frames, but got 'water'"):
        read_frames(path)


@pytest.mark.parametrize("path", EMBEDDED, ids=lambda path: path.name)
def test_frames_from_disk_give_the_same_results(path: Path, tmp_path: Path) -> None:
    frames = [frame for frame in read_frames(path) if len(frame) > 1][:300]
    for k, frame in enumerate(frames):
        frame.info["source"] = f"a:{k}"
    frames += [frames[3].copy(), frames[7].copy()]
    with Store(tmp_path) as store:
        for frame in frames:
            store.append(frame)
        assert all(same(a, b) for a, b in zip(store, frames, strict=True))
        assert labels_hash(store) == labels_hash(frames)
        pairs = near_pairs(store, 1e-3)
        assert pairs == near_pairs(frames, 1e-3)
        assert {(3, len(frames) - 2), (7, len(frames) - 1)} <= set(pairs)
        assert checks.find_duplicates(store, 1e-3) == checks.find_duplicates(frames, 1e-3)
        assert checks.energy_faults(store, 20.0) == checks.energy_faults(frames, 20.0)
        for rule in ("auto", "composition"):
            assert group_frames(store, rule, 0.1, 0.1) == group_frames(frames, rule, 0.1, 0.1)


def test_views_and_notes(tmp_path: Path) -> None:
    frames = [molecule(name, info={"k": k}) for k, name in enumerate(["H2O", "CH4", "NH3", "CO", "N2"])]
    with Store(tmp_path / "new") as store:
        for frame in frames:
            store.append(frame)
        store.note(1, "group", "g")
        store.append(molecule("O2", info={"k": 5}))
        assert [frame.info["k"] for frame in store[1:4]] == [1, 2, 3]
        assert store[-1].info["k"] == 5
        assert store[1].info == {"k": 1, "group": "g"}
        assert "group" not in store[2].info
        picked = Picked(store, [4, 0])
        chain = Chain([picked, [], frames[:2]])
        assert [frame.info["k"] for frame in chain] == [4, 0, 0, 1]
        assert len(chain[1:]) == 3
        with pytest.raises(IndexError):
            chain[4]


MEASURE = """
import resource, sys
from pathlib import Path
from retemper.data.frames import stream_frames
from retemper.data.frame_store import Store
with Store(Path(sys.argv[1]).parent) as store:
    for frame in stream_frames(sys.argv[1]):
        store.append(frame)
    atoms = sum(len(frame) for frame in store)
print(atoms, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Twelve times the frames; held as Atoms, 5,500 more would take 20 MB or more."""
    frames = [molecule(name) for name in ("CH3CH2OH", "C6H6", "CH3OH", "H2O", "C2H6")] * 100
    peak = {}
    for times in (1, 12):
        path = tmp_path / f"{times}.extxyz"
        write_frames(path, frames * times)
        done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
        atoms, peak[times] = map(int, done.stdout.split())
        assert atoms == 38 * 100 * times
    assert peak[12] - peak[1] < 3000  # KiB
