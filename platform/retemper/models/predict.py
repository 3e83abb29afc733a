"""Energies, forces and stresses of many structures from a MACE model, in batches.

Two backends give the same numbers: ``torch`` (MACE itself, any device) and
``symmetrix`` (a C++ evaluator for CPUs, see `retemper.models.symmetrix`), which is
compared with torch on structures of the very set before it is trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.core.errors import unknown
from retemper.models.mace import check_frames, pick_head, predict_torch
from retemper.models.predictions import Predictions

BACKENDS = ("auto", "torch", "symmetrix")


# ------------------------------------------------------------------ the model


# ------------------------------------------------------------------ prediction


def predict(
    model: str | Path,
    frames: Sequence[Atoms],
    *,
    head: str | None = None,
    dtype: str = "float64",
    device: str = "cpu",
    backend: str = "auto",
    progress: bool = False,
) -> Predictions:
    """Energy, forces and stress of every frame.

    Parameters
    ----------
    model
        MACE model file.
    frames
        Structures; labels and calculators are ignored. Total charge and spin are read from
        ``info`` (`retemper.data.charge`) by models that use them.
    head
        Head of a multihead model; without it the one called Default (see `pick_head`).
    dtype, device
        Of the torch backend. symmetrix is used only for float64 on a CPU.
    backend
        "torch", "symmetrix", or "auto": symmetrix where it is installed, applies, and where the
        work is estimated to repay its extraction. Where the two differ on a sample of the frames
        by more than 1e-5 eV/A or 1e-6 eV/atom, torch computes everything and a line says so.
    progress
        Print a line every few seconds.

    Returns
    -------
    Predictions
        In the order of `frames`.

    Raises
    ------
    RetemperError
        An element that the model lacks, a broken cell or position, an output that is not finite
        (each with the frame named), an unknown head, dtype or backend.
    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    head = pick_head(model, head)
    check_frames(model, frames)
    if not len(frames):
        return Predictions(np.zeros(0), [], np.zeros((0, 3, 3)), "torch")
    if backend != "torch":
        from retemper.models import symmetrix

        fast = symmetrix.predict(model, frames, head, dtype, device, backend == "symmetrix", progress)
        if fast is not None:
            return fast
    return predict_torch(model, frames, head, dtype, device, progress)
