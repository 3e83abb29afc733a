"""MACE descriptors of structures: what the foundation sees of them, as one vector each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper.models import mace, predictions


def mean_descriptors(
    model: str | Path,
    frames: Sequence[Atoms],
    *,
    head: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    progress: bool = False,
) -> np.ndarray:
    """Mean over atoms of `atomic_descriptors`.

    Returns
    -------
    np.ndarray
        [n_frames, n_layers * n_channels], dimensionless, in the order of `frames`.

    Raises
    ------
    RetemperError
        As `predict.predict`.
    """
    means: np.ndarray | None = None
    for indices, parts in _features(model, frames, head, dtype, device, progress):
        if means is None:
            means = np.empty((len(frames), parts[0].shape[1]), dtype=parts[0].dtype)
        means[indices] = [atoms.mean(axis=0) for atoms in parts]
    return np.zeros((0, 0), dtype=dtype) if means is None else means


def atomic_descriptors(
    model: str | Path,
    frames: Sequence[Atoms],
    *,
    head: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    progress: bool = False,
) -> list[np.ndarray]:
    """Invariant node features of every layer, atom by atom.

    The node features are those of ``MACECalculator.get_descriptors(invariants_only=True)``:
    the scalars after each product block (Batatia et al., NeurIPS 35, 11423, 2022, eq. 11),
    computed in batches and without gradients.

    Returns
    -------
    list of np.ndarray
        For each frame [n_atoms, n_layers * n_channels], dimensionless.

    Raises
    ------
    RetemperError
        As `predict.predict`.
    """
    descriptors: list[np.ndarray] = [np.empty(0)] * len(frames)
    for indices, parts in _features(model, frames, head, dtype, device, progress):
        for i, part in zip(indices, parts, strict=True):
            descriptors[i] = part
    return descriptors


def _features(
    model: str | Path, frames: Sequence[Atoms], head: str | None, dtype: str, device: str, progress: bool
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Batch by batch: indices into `frames`, and what `atomic_descriptors` returns for them."""
    mace.check_frames(model, frames)
    if not len(frames):
        return
    module = mace.load(model, device, dtype)
    head = mace.pick_head(model, head)
    tick = predictions.ticker("descriptors", len(frames), progress)
    import torch
    from e3nn import o3
    from mace.modules.utils import extract_invariant

    irreps = o3.Irreps(str(module.products[0].linear.irreps_out))
    layers, channels = int(module.num_interactions), irreps.dim // (irreps.lmax + 1) ** 2
    with mace.default_dtype(dtype), torch.no_grad():
        for indices, batch in mace.batches(module, frames, head, device):
            features = module(batch, training=False, compute_force=False)["node_feats"]
            invariant = extract_invariant(features, num_layers=layers, num_features=channels, l_max=irreps.lmax)
            sizes = torch.bincount(batch["batch"]).tolist()
            yield indices, [part.cpu().numpy() for part in torch.split(invariant, sizes)]
            tick(len(indices))
