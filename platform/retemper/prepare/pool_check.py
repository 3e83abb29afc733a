"""Whether the labels of a replay pool are the foundation's own kind, before they are trained on.

The replay head keeps the foundation's atomic reference energies. Labels of another level of theory, or with other
reference energies, would pull it away from what it is to keep: their energies miss the foundation's by one amount an
element, far more than what is left when those amounts are taken out.
"""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols

from retemper.core.errors import RetemperError
from retemper.data.energies_by_element import fractions, least_absolute
from retemper.data.frames import ENERGY, FORCES, STRESS, stress_matrix
from retemper.data.units.predicted import Predicted
from retemper.records.replay import Agreement

# eV/atom, of the median difference in energy. Foundations miss structures of their own kind by 0.02 to 0.3 (the
# largest: a miniature on one crystal); PBE against r2SCAN by 0.4 to 2.8, against xTB and other codes by 30 and more.
DOUBTFUL, OTHER = 0.15, 1.0
SYSTEMATIC = 3.0  # the difference over what one energy an element leaves of it


def doubtful(sample: Agreement) -> bool:
    """Whether the energies look like those of another level of theory."""
    return sample.energy > 1e3 * DOUBTFUL and sample.energy > SYSTEMATIC * sample.energy_without_offsets


def agreement(predicted: Predicted) -> Agreement:
    """How far the labels of the frames are from the predictions.

    Parameters
    ----------
    predicted
        Predictions for frames with ``REF_energy`` (eV) and ``REF_forces`` (eV/A).
    """
    frames = predicted.frames
    labels = np.array([float(atoms.info[ENERGY]) for atoms in frames])
    per_atom = (labels - predicted.energy) / np.array([len(atoms) for atoms in frames])
    shares, species = fractions(frames)
    offsets = least_absolute(shares, per_atom)
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    square = np.concatenate(
        [
            ((atoms.arrays[FORCES] - forces) ** 2).mean(axis=1)
            for atoms, forces in zip(frames, predicted.forces, strict=True)
        ]
    )
    stress = [
        (stress_matrix(atoms.info[STRESS]) - predicted_stress) ** 2
        for atoms, predicted_stress in zip(frames, predicted.stress, strict=True)
        if STRESS in atoms.info and np.isfinite(predicted_stress).all()
    ]
    return Agreement(
        frames=len(frames),
        energy=1e3 * float(np.median(np.abs(per_atom))),
        energy_without_offsets=1e3 * float(np.median(np.abs(per_atom - shares @ offsets))),
        offsets={chemical_symbols[z]: float(e) for z, e in zip(species.tolist(), offsets, strict=True)},
        force_rmse=1e3 * float(np.sqrt(square.mean())),
        force_rmse_by_element={
            chemical_symbols[z]: 1e3 * float(np.sqrt(square[numbers == z].mean())) for z in np.unique(numbers).tolist()
        },
        stress_rmse=1e3 * float(np.sqrt(np.mean(stress))) if stress else None,
    )


def warning(sample: Agreement, pool: str) -> str | None:
    """What is odd about the labels of `pool`, in a sentence; `None` where nothing is."""
    if not doubtful(sample):
        return None
    largest = sorted(sample.offsets.items(), key=lambda item: -abs(item[1]))[:4]
    return (
        f"{pool}: energies miss the foundation's by {sample.energy:.0f} meV/atom, and by "
        f"{sample.energy_without_offsets:.0f} once one energy an element is taken out "
        f"({', '.join(f'{symbol} {offset:+.2f} eV' for symbol, offset in largest)}): "
        "another level of theory, or other reference energies"
    )


def require_own_kind(sample: Agreement, pool: str) -> None:
    """Raise where the labels of `pool` cannot be of the foundation's level of theory."""
    objection = warning(sample, pool)
    if objection is None or sample.energy <= 1e3 * OTHER:
        return
    raise RetemperError(
        f"{objection}.",
        expected=f"labels of the foundation's own level of theory: at most {1e3 * OTHER:.0f} meV/atom from it",
        got=f"{sample.energy:.0f} meV/atom over {sample.frames} structures of the pool",
        fix="replay these structures with the foundation's labels (strategy pseudolabel-replay), or give another "
        "replay.pools",
    )
