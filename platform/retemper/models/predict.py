"""Energies, forces and stresses of many structures from a MACE model, in batches.

Two backends give the same numbers: ``torch`` (MACE itself, any device) and ``symmetrix`` (a C++ evaluator for CPUs,
see `retemper.models.symmetrix`), which is compared with torch before it is trusted (`retemper.models.referee`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.core.errors import RetemperError, unknown
from retemper.core.output import log
from retemper.models.mace import check_frames, load, pick_head, predict_torch
from retemper.models.predictions import Predictions, check_finite, ticker

BACKENDS = ("auto", "torch", "symmetrix")
# Cost model in seconds of one core (measured; only their ratios matter). `paths` is the number of
# radial weights of an edge, summed over the layers: 192 for 24x0e, 448 for 32x0e + 32x1o.
TORCH_ATOM, TORCH_EDGE = 2e-6, 0.14e-6  # per path and atom, per path and edge
SPEED_UP = 5.0  # over torch's batches
PAIR, PAIR_PATH = 0.045, 0.12e-3  # a pair of elements: constant, and per path
EXTRACT, EXTRACT_ELEMENT = 15.0, 1.5  # an extraction and its comparison: constant, and per element


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
        work is estimated to repay its extraction. Frames on which the two differ are torch's, see
        `retemper.models.referee`; a line says so.
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
    fast_indices = (
        [] if backend == "torch" else _frames_for_symmetrix(model, frames, head, dtype, device, backend == "symmetrix")
    )
    if not fast_indices:
        return predict_torch(model, frames, head, dtype, device, progress)
    fast = _compare(model, [frames[i] for i in fast_indices], head, progress)
    if fast is None:
        return predict_torch(model, frames, head, dtype, device, progress)
    rest = sorted(set(range(len(frames))) - set(fast_indices))
    slow = predict_torch(model, [frames[i] for i in rest], head, dtype, device, progress)
    energy, stress = np.empty(len(frames)), np.empty((len(frames), 3, 3))
    forces: list[np.ndarray] = [np.empty(0)] * len(frames)
    for indices, part in ((fast_indices, fast), (rest, slow)):
        energy[indices], stress[indices] = part.energy, part.stress
        for i, values in zip(indices, part.forces, strict=True):
            forces[i] = values
    check_finite(frames, range(len(frames)), energy, forces, stress)
    return Predictions(energy, forces, stress, fast.backend)


def _frames_for_symmetrix(
    model: str | Path, frames: Sequence[Atoms], head: str, dtype: str, device: str, asked: bool
) -> list[int]:
    """Frames for symmetrix, none where torch should do everything.

    `asked` is true when the user named symmetrix: then it gets every element set, and a reason
    why it cannot be used is an error (not installed, wrong device or dtype) or is printed.
    """
    from retemper.models import referee, symmetrix

    obstacle = symmetrix.obstacle_here(dtype, device)
    if obstacle is not None:
        if asked:
            raise RetemperError(
                f"The symmetrix backend cannot be used: {obstacle}.", fix="set backend to auto or torch"
            )
        return []
    objection = symmetrix.unknown_architecture(model)
    if objection is not None:
        if asked:
            log.info(f"  symmetrix does not support {model}: {objection}; using torch.")
        return []
    groups = symmetrix.element_sets(frames)
    sets = list(groups) if asked else worthwhile(model, frames, groups)
    if not sets:
        return []
    verdict = referee.judge(model, head, sorted(set().union(*sets)), [], symmetrix.CACHE)
    if verdict.objection:
        log.warning(f"  {model}: {verdict.objection}; using torch.")
        return []
    return [i for elements in sets for i in groups[elements]]


def _compare(model: str | Path, frames: Sequence[Atoms], head: str, progress: bool) -> Predictions | None:
    """Predictions of symmetrix, a part of them compared with torch; `None` where torch should do everything."""
    from retemper.models import referee, symmetrix

    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    fast, closest = symmetrix.predict(
        symmetrix.extracted(model, head, elements), frames, ticker("symmetrix", len(frames), progress)
    )

    def torch(subset: list[Atoms]) -> Predictions:
        return predict_torch(model, subset, head, "float64", "cpu", progress)

    settled, wrong = referee.settle(frames, fast, closest, torch)
    if wrong:
        log.warning(f"  symmetrix differs from torch on {wrong} structures that were compared: torch's are used.")
    return settled


def worthwhile(
    model: str | Path, frames: Sequence[Atoms], groups: dict[tuple[int, ...], list[int]]
) -> list[tuple[int, ...]]:
    """Element sets that symmetrix does faster than torch, extraction and comparisons included.

    A deterministic estimate from atoms, neighbours and the size of the model, so that the
    same input takes the same path everywhere.
    """
    from retemper.models import referee, symmetrix

    module = load(model)
    paths = sum(int(layer.conv_tp.weight_numel) for layer in module.interactions)
    sample = range(0, len(frames), max(1, len(frames) // 10))
    sampled_atoms = sum(len(frames[i]) for i in sample)
    sampled_edges = sum(symmetrix.neighbours(frames[i], float(module.r_max))[0].shape[1] for i in sample)
    torch_atom = paths * (TORCH_ATOM + TORCH_EDGE * sampled_edges / sampled_atoms)
    pair = PAIR + PAIR_PATH * paths

    def saved(elements: tuple[int, ...], indices: list[int]) -> float:
        atoms = sum(len(frames[i]) for i in indices)
        return float(torch_atom) * atoms * (1 - 1 / SPEED_UP - referee.SHARE) - pair * len(elements) ** 2

    gains = {elements: saved(elements, indices) for elements, indices in groups.items()}
    selected = [elements for elements, gain in gains.items() if gain > 0]
    if not selected:
        return []
    overhead = EXTRACT + EXTRACT_ELEMENT * len(set().union(*selected))
    return selected if sum(gains[elements] for elements in selected) > overhead else []
