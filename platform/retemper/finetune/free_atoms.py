"""Free atoms of the data as training frames, for foundations that do not give a free atom its E0.

Readouts with biases, and those that read charge and spin, add to a free atom's energy something that no frame of bonded
atoms fixes (arXiv:2606.12704, tables T3 and T8, repeats free atoms when MH-1 is fine-tuned).
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from ase import Atoms
from ase.data import chemical_symbols

from retemper.config.project import Project
from retemper.core import sealed
from retemper.core.errors import RetemperError
from retemper.core.files import digest
from retemper.core.output import log
from retemper.data.frames import labels_hash, read_frames, stream_frames, write_frames
from retemper.finetune.plan import counted
from retemper.records.e0s import ReferenceEnergies


def joined(project: Project, train: Path) -> Path:
    """The training file with each free atom ``finetune.free_atoms`` times at its end; `train` itself for 0.

    Raises
    ------
    RetemperError
        The data have no free atom of any element of the training and validation frames.
    """
    times = project.settings.finetune.free_atoms
    if not times:
        return train
    symbols = ReferenceEnergies.read(project.e0s).elements_in_data
    frames = _free_atoms(project.structures("isolated"), symbols)
    identity = digest([counted(train)[1], labels_hash(frames), times])
    log.info(f"free atoms of {', '.join(frame.symbols[0] for frame in frames)}, each {times} times a training frame")
    out = project.cache("free-atoms") / f"{identity}.extxyz"
    return sealed.file(out, identity, lambda path: write_frames(path, chain(stream_frames(train), frames * times)))


def _free_atoms(path: Path, symbols: list[str]) -> list[Atoms]:
    """The free atoms of these elements; others would teach the zero of energy of another level of theory."""
    frames = read_frames(path) if path.is_file() and path.stat().st_size else []
    by_symbol = {chemical_symbols[frame.numbers[0]]: frame for frame in frames}
    lacking = [symbol for symbol in symbols if symbol not in by_symbol]
    if not set(by_symbol) & set(symbols):
        raise RetemperError(
            "finetune.free_atoms asks for free atoms as training frames, and the data have none.",
            expected=f"free atoms of {', '.join(symbols)}",
            got=f"free atoms of {', '.join(by_symbol)}" if by_symbol else "no frame of one atom",
            fix="add single-atom frames (ground-state multiplicity) to dataset.files, or set finetune.free_atoms: 0",
        )
    if lacking:
        log.warning(f"Warning: the data have no free atom of {', '.join(lacking)} (finetune.free_atoms)")
    return [by_symbol[symbol] for symbol in symbols if symbol in by_symbol]
