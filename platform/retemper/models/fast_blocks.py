"""MACE's blocks in less time: within a block of code, a model's contractions, convolutions and mixings are computed by
`retemper.models.contraction`, `convolution` and `element_mixing`.

Parameters, buffers and their names stay the same, values differ by rounding. Modules of other back ends
(cuEquivariance, OpenEquivariance) are left alone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mace.modules.blocks import InteractionBlock
from mace.modules.symmetric_contraction import Contraction
from mace.tools.scatter import scatter_sum

from retemper.models.contraction import SparseContraction
from retemper.models.convolution import Convolution, is_by_channel
from retemper.models.element_mixing import ElementMixing, is_by_element

ROUNDINGS = 1e5  # of the largest value: what the same sum may differ by, in another order


@dataclass(frozen=True)
class Replacement:
    """A module and what is computed instead of its ``forward``."""

    module: Any
    forward: Callable[..., torch.Tensor]
    convolves: Any = None  # the block whose convolution the module is


@contextlib.contextmanager
def fast(model: torch.nn.Module) -> Iterator[int]:
    """Within the block the model is computed in less time; yields how many of its modules are replaced."""
    with _in_place(_replacements(model)) as number:
        yield number


@contextlib.contextmanager
def verified(model: torch.nn.Module) -> Iterator[int]:
    """`fast` for a model that does not change; a module whose values differ from MACE's is left to MACE."""
    with _in_place(_equal(model)) as number:
        yield number


def _replacements(model: torch.nn.Module) -> list[Replacement]:
    replacements = []
    module: Any
    for module in model.modules():
        if isinstance(module, Contraction):
            replacements.append(Replacement(module, SparseContraction(module)))
        elif isinstance(module, InteractionBlock) and is_by_channel(module):
            block: Any = module
            convolution = Convolution(block.conv_tp, next(block.linear_up.parameters()))
            replacements.append(Replacement(block.conv_tp, convolution, block))
        elif is_by_element(module):
            replacements.append(Replacement(module, ElementMixing(module)))
    return replacements


@contextlib.contextmanager
def _in_place(replacements: Sequence[Replacement]) -> Iterator[int]:
    for replacement in replacements:
        replacement.module.forward = replacement.forward
        if replacement.convolves is not None:
            replacement.convolves.conv_fusion = True  # MACE then hands over the edges, and does not sum itself
    try:
        yield len(replacements)
    finally:
        for replacement in replacements:
            del replacement.module.forward
            if replacement.convolves is not None:
                del replacement.convolves.conv_fusion


@functools.lru_cache(maxsize=8)
def _equal(model: torch.nn.Module) -> tuple[Replacement, ...]:
    """The replacements that give MACE's own values for random features."""
    return tuple(replacement for replacement in _replacements(model) if _difference(replacement) <= ROUNDINGS)


@torch.no_grad()
def _difference(replacement: Replacement) -> float:
    """Largest difference from MACE's values for random features, over the largest value, in roundings."""
    generator = torch.Generator().manual_seed(0)
    module: Any = replacement.module
    if isinstance(module, Contraction):
        weight = module.weights_max  # [elements, paths, channels]
        shape = (len(weight), weight.shape[-1], module.U_tensors(1).shape[-2])
        arguments = [_random(generator, *shape).to(weight), torch.eye(len(weight)).to(weight)]
        right = module(*arguments)
    elif replacement.convolves is not None:
        like = next(replacement.convolves.linear_up.parameters())
        edges = torch.tensor([[1, 2, 0, 2, 0], [0, 0, 1, 1, 2]], device=like.device)
        features = _random(generator, 3, module.irreps_in1.dim).to(like)
        harmonics = _random(generator, 5, module.irreps_in2.dim).to(like)
        weights = _random(generator, 5, module.weight_numel).to(like)
        arguments = [features, harmonics, weights, edges]
        right = scatter_sum(module(features[edges[0]], harmonics, weights), edges[1], dim=0, dim_size=3)
    else:
        elements = torch.eye(module.irreps_in2.dim).to(module.weight)
        arguments = [_random(generator, len(elements), module.irreps_in1.dim).to(module.weight), elements]
        right = module(*arguments)
    off = (replacement.forward(*arguments) - right).abs().max()
    return float(off / right.abs().max() / torch.finfo(right.dtype).eps)


def _random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)
