"""What enters the last linear maps of a MACE model: the energy is exactly linear in it, atom by atom."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from retemper.core.errors import RetemperError
from retemper.models import mace


def features(model: str | Path, frames: Sequence[Atoms], head: str, device: str) -> Iterator[tuple[int, np.ndarray]]:
    """Index of each frame (in order of size) with its features [n_atoms, d], in float64."""
    import torch

    mace.check_frames(model, frames)
    module = mace.load(model, device, "float64")
    with mace.default_dtype("float64"), torch.no_grad():
        for indices, batch in mace.batches(module, frames, head, device):
            with _inputs(module) as inputs:
                module(batch, training=False, compute_force=False)
            parts = torch.split(torch.cat(inputs, dim=1).cpu(), [len(frames[i]) for i in indices])
            for i, part in zip(indices, parts, strict=True):
                yield i, part.numpy()


@contextlib.contextmanager
def _inputs(module: Any) -> Iterator[list[Any]]:
    """Collect the scalars that enter the last linear map of every readout."""
    inputs: list[Any] = []
    hooks = []
    for readout in module.readouts:
        last = getattr(readout, "linear_2", None) or getattr(readout, "linear", None)
        if last is None or not hasattr(last, "irreps_in"):
            raise RetemperError(
                f"The readout {type(readout).__name__} has no last linear map that is known here.",
                expected="LinearReadoutBlock or NonLinearReadoutBlock, as mace-torch 0.3.16 has them",
                fix="set acquire.uncertainty to committee or distance",
            )
        scalars = [
            part for (_, ir), part in zip(last.irreps_in, last.irreps_in.slices(), strict=True) if str(ir) == "0e"
        ]

        def keep(_: Any, arguments: tuple[Any, ...], scalars: list[slice] = scalars) -> None:
            inputs.extend(arguments[0][:, part] for part in scalars)

        hooks.append(last.register_forward_pre_hook(keep))
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()
