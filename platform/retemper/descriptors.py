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
    """Mean over atoms of the invariant node features of every layer.

    The node features are those of ``MACECalculator.get_descriptors(invariants_only=True)``:
    the scalars after each product block (Batatia et al., NeurIPS 35, 11423, 2022, eq. 11),
    computed in batches and without gradients.

    Returns
    -------
    np.ndarray
        [n_frames, n_layers * n_channels], dimensionless, in the order of `frames`.

    Raises
    ------
    RetemperError
        As `inference.predict`.
    """
    inference.check_frames(model, frames)
    if not len(frames):
        return np.zeros((0, 0), dtype=dtype)
    module = inference.load(model, device, dtype)
    head = inference.pick_head(model, head)
    tick = inference.ticker("descriptors", len(frames), progress)
    means: list[np.ndarray | None] = [None] * len(frames)
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
                means[i] = part.mean(dim=0).cpu().numpy()
            tick(len(indices))
    return np.stack([mean for mean in means if mean is not None])
