"""Training sets that stay on disk: extxyz converted once into the LMDB that MACE reads frame by frame.

A row holds what MACE takes from the extxyz file, to the last digit, so that training is the same. MACE's HDF5 is not
used: in it a frame is some fifteen small data sets, ten times the space and far slower to read and write.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from ase import Atoms

from retemper.core import sealed
from retemper.core.files import locked
from retemper.data import charge
from retemper.data.frames import BLOCK, ENERGY, FORCES, STRESS, in_blocks, stream_frames
from retemper.finetune.plan import Flags, Plan

LARGEST = 1 << 40  # bytes that a file may grow to


def flags(plan: Plan, folder: Path) -> Flags:
    """MACE's settings for the target's files as LMDB in `folder`; empty for sets that fit into memory."""
    target = plan.target
    if target.n_train <= plan.disk_above:
        return {}
    files = ((target.train, target.train_hash), (target.valid, target.valid_hash))
    train, valid = (_convert(Path(path), folder / f"{identity}.aselmdb", identity) for path, identity in files)
    return {"train_file": str(train), "valid_file": str(valid), "atomic_numbers": str(plan.elements)}


def _convert(path: Path, out: Path, identity: str) -> Path:
    with locked(out.with_suffix(".lock"), "writes the same structures"):
        return sealed.file(out, identity, lambda temporary: write(path, temporary))


def write(path: Path, out: Path) -> None:
    """Convert an extxyz file; a block of frames is in memory."""
    import lmdb
    import orjson

    def packed(content: Any) -> bytes:
        return zlib.compress(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))

    number = 0
    with lmdb.open(str(out), subdir=False, lock=False, map_size=LARGEST) as file:
        for block in in_blocks(stream_frames(path), BLOCK):
            with file.begin(write=True) as rows:
                for atoms in block:
                    number += 1
                    rows.put(str(number).encode(), packed(_row(atoms)))
        with file.begin(write=True) as rows:
            rows.put(b"nextid", packed(number + 1))


def _row(atoms: Atoms) -> dict[str, object]:
    row = {
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "cell": atoms.cell.array,
        "pbc": atoms.pbc,
        "energy": atoms.info[ENERGY],
        "forces": atoms.arrays[FORCES],
        "key_value_pairs": {k: v for k, v in atoms.info.items() if k.startswith("config_") or k == "elec_temp"}
        | charge.info_of(atoms),
    }
    return row | ({"stress": atoms.info[STRESS]} if STRESS in atoms.info else {})
