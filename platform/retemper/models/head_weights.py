"""A model made anew with some heads of another: one of them alone, or one under several names.

MACE (0.3.16) has this twice, and each knows fewer architectures than MACE trains: its `load_foundations_elements` takes
the weights of a layer for those of one irrep (three layers with equivariant messages end in an error), and its
`remove_pt_head` passes over what does not fit without a word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from retemper.core.errors import RetemperError
from retemper.models import building, describing

if TYPE_CHECKING:
    import torch

BY_HEAD = (
    "readouts.",
    "embedding_readout.",
    "scale_shift.",
    "atomic_energies_fn.",
)  # tensors with a part for each head


def with_heads(model: Any, heads: Mapping[str, str]) -> torch.nn.Module:
    """A model that has, under each name of `heads`, the head of `model` that stands there, and all of the rest.

    It has the precision of `model` and shares no tensors with it.

    Raises
    ------
    RetemperError
        An architecture that cannot be described (`describing.describe`).
    """
    described = describing.describe(model)
    rows = [described.heads.index(head) for head in heads.values()]
    tensors = {
        name: _of_heads(model, name, tensor, len(described.heads), rows)
        for name, tensor in describing.state(model).items()
    }
    rebuilt = building.build(described.model_copy(update={"heads": list(heads)}), tensors, "the model")
    return rebuilt.to(next(model.parameters()).device)


def _of_heads(model: Any, name: str, tensor: torch.Tensor, number: int, rows: list[int]) -> torch.Tensor:
    """What a tensor of a model with `number` heads is in one that has those of `rows`."""
    if not name.startswith(BY_HEAD) or tensor.numel() == 0:
        return tensor
    where, _, kind = name.rpartition(".")
    if kind != "weight":  # biases, masks, scale, shift, reference energies: [heads, ...]
        part = tensor.reshape(number, -1)[rows]
        return part if name.startswith("atomic_energies_fn.") else part.flatten()
    scale = math.sqrt(len(rows) / number)  # e3nn divides what comes from units of all heads by the root of their number
    if where.endswith(".linear"):  # [inputs, heads]
        return tensor.reshape(-1, number)[:, rows].flatten()
    if where.endswith(".linear_1"):  # [inputs, heads, units]
        inputs = model.get_submodule(where).irreps_in.count("0e")
        return tensor.reshape(inputs, number, -1)[:, rows].flatten()
    if where.endswith(".linear_mid"):  # [heads, units, heads, units]
        units = round(tensor.numel() ** 0.5) // number
        return tensor.reshape(number, units, number, units)[rows][:, :, rows].flatten() * scale
    if where.endswith(".linear_2"):  # [heads, units, heads]
        return tensor.reshape(number, -1, number)[rows][:, :, rows].flatten() * scale
    raise RetemperError(
        f"It is not known what {name} holds for each head.", fix="report this with the name of the foundation"
    )
