"""MACE descriptors of structures: what the foundation sees of them, as one vector each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from retemper import inference


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
        As `inference.predict`.
    """
    every = atomic_descriptors(model, frames, head=head, dtype=dtype, device=device, progress=progress)
    return np.stack([atoms.mean(axis=0) for atoms in every]) if every else np.zeros((0, 0), dtype=dtype)


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
        As `inference.predict`.
    """
    inference.check_frames(model, frames)
    if not len(frames):
        return []
    module = inference.load(model, device, dtype)
    head = inference.pick_head(model, head)
    tick = inference.ticker("descriptors", len(frames), progress)
    found: list[np.ndarray] = [np.empty(0)] * len(frames)
    import torch
    from e3nn import o3
    from mace.modules.utils import extract_invariant

    irreps = o3.Irreps(str(module.products[0].linear.irreps_out))
    layers, channels = int(module.num_interactions), irreps.dim // (irreps.lmax + 1) ** 2
    with inference.default_dtype(dtype), torch.no_grad():
        for indices, batch in inference.batches(module, frames, head, device):
            features = module(batch, training=False, compute_force=False)["node_feats"]
            invariant = extract_invariant(features, num_layers=layers, num_features=channels, l_max=irreps.lmax)
            for i, part in zip(indices, torch.split(invariant, [len(frames[i]) for i in indices]), strict=True):
                found[i] = part.cpu().numpy()
            tick(len(indices))
    return found
