"""What a model says about structures, and the checks of it that every backend shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from retemper.core.errors import RetemperError
from retemper.core.output import log


@dataclass(frozen=True)
class Predictions:
    """What a model says about a list of frames, in their order."""

    energy: np.ndarray  # [n_frames] eV
    forces: list[np.ndarray]  # n_frames times [n_atoms, 3] eV/A
    stress: np.ndarray  # [n_frames, 3, 3] eV/A^3, ASE's sign; NaN for a frame that is not periodic in 3D
    backend: str  # "torch" or "symmetrix": what computed them


def name_of(atoms: Atoms, index: int) -> str:
    """A frame as error messages call it: place in the list, formula, where it came from."""
    origin = "".join(f", {key} {atoms.info[key]}" for key in ("config_type", "source") if key in atoms.info)
    return f"frame {index} ({atoms.symbols}{origin})"


def has_stress(atoms: Atoms) -> bool:
    """Whether stress is defined: periodic in three directions."""
    return bool(atoms.pbc.all())


def check_finite(
    frames: Sequence[Atoms],
    indices: Sequence[int],
    energy: np.ndarray,
    forces: Sequence[np.ndarray],
    stress: np.ndarray,
) -> None:
    """Raise for the first of `indices` whose energy, forces or (periodic) stress are not finite."""
    for i in indices:
        fine = np.isfinite(energy[i]) and np.isfinite(forces[i]).all()
        if not fine or (has_stress(frames[i]) and not np.isfinite(stress[i]).all()):
            raise RetemperError(
                f"The model's energy, forces or stress of {name_of(frames[i], i)} are not finite.",
                fix="look at this structure (atoms on top of each other?), or retrain with a lower learning rate",
            )


def ticker(label: str, total: int, progress: bool, every: float = 5.0) -> Callable[[int], None]:
    """A function to call with the number of frames done; prints at most one line in `every` seconds."""
    start = last = time.monotonic()
    done = 0

    def tick(number: int) -> None:
        nonlocal done, last
        done += number
        now = time.monotonic()
        if progress and (now - last > every or (done == total and now - start > every)):
            last = now
            left = (now - start) / done * (total - done)
            log.info(f"  {label}: {done}/{total} structures, {now - start:.0f} s, {left:.0f} s left")

    return tick
