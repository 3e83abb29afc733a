"""Low-rank adapters folded into the weights they adapt, also where linear layers have biases.

MACE's own `merge_lora_weights` (0.3.16) takes a bias for a matrix of weights and ends in an IndexError.
"""

from __future__ import annotations

from typing import Any

import torch
from mace.modules.lora import LoRADenseLinear, LoRAFCLayer, LoRAO3Linear


def merge(model: torch.nn.Module) -> None:
    """Replace every adapted layer of `model` by its base layer, weights changed by what its adapters add.

    For a dense layer W' = W + (alpha / rank) B A; of an equivariant one this holds for each irrep by itself.
    Biases have no adapters and stay.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRAO3Linear):
                _merge_equivariant(child)
                setattr(module, name, child.base)
            elif isinstance(child, (LoRADenseLinear, LoRAFCLayer)):
                setattr(module, name, child.merge_into_base())


@torch.no_grad()
def _merge_equivariant(lora: LoRAO3Linear) -> None:
    """Add scaling * (c_A c_B / c) A B to each block of the base's weights; c are e3nn's normalisations of a path."""
    first = {path.i_in: (path, block) for path, block in _blocks(lora.lora_A)}
    last = {(path.i_in, path.i_out): (path, block) for path, block in _blocks(lora.lora_B)}
    for path, block in _blocks(lora.base):
        if path.i_in not in first:
            continue  # this irrep is not in the output: no adapter
        into, a = first[path.i_in]
        if (into.i_out, path.i_out) not in last:
            continue
        out, b = last[into.i_out, path.i_out]
        block += lora.scaling * (into.path_weight * out.path_weight / path.path_weight) * (a @ b)


def _blocks(linear: Any) -> list[tuple[Any, torch.Tensor]]:
    """Paths of an e3nn linear layer with views of their weights; its biases, listed after them, left out."""
    paths = [path for path in linear.instructions if path.i_in >= 0]
    return [(path, linear.weight_view_for_instruction(k)) for k, path in enumerate(paths)]
