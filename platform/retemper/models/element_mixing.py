"""MACE's mixing of channels by element, for the elements that are there: the same function, computed in less time.

MACE multiplies features with one-hot elements in a tensor product (``skip_tp``), whose weights [channels, elements,
channels] it uses all. A foundation knows 89 elements and a batch of structures has a few: only their weights matter.
Results differ by rounding alone.
"""

from __future__ import annotations

import math

import torch

from e3nn import o3  # isort: skip


def is_by_element(product: object) -> bool:
    """Whether this is a product of features with one-hot elements."""
    return (
        isinstance(product, o3.FullyConnectedTensorProduct)
        and product.internal_weights
        and len(product.irreps_in2) == 1
        and product.irreps_in2[0].ir == o3.Irrep("0e")
        and all(path.connection_mode == "uvw" and path.has_weight for path in product.instructions)
    )


class ElementMixing:
    """A tensor product with `is_by_element`, whose weights it reads at each call."""

    def __init__(self, product: o3.FullyConnectedTensorProduct):
        self.product = product

    def __call__(self, features: torch.Tensor, elements: torch.Tensor) -> torch.Tensor:
        """As the product's own: features [n_atoms, irreps], elements [n_atoms, n_elements]."""
        product, n_atoms = self.product, len(features)
        present = elements.detach().ne(0).any(0).nonzero().squeeze(1)
        of_present = elements.index_select(1, present)
        parts = features.split([mul * ir.dim for mul, ir in product.irreps_in1], dim=1)
        sums: list[torch.Tensor | None] = [None] * len(product.irreps_out)
        begin = 0
        for path in product.instructions:
            mul, ir = product.irreps_in1[path.i_in1]
            size = math.prod(path.path_shape)
            weight = product.weight[begin : begin + size].view(path.path_shape).index_select(1, present)
            begin += size
            factor = path.path_weight / math.sqrt(ir.dim)  # e3nn's coupling of l and 0 to l is 1 / sqrt(2 l + 1)
            feature = parts[path.i_in1].view(n_atoms, mul, ir.dim).transpose(1, 2)
            outer = (feature.unsqueeze(3) * (factor * of_present).view(n_atoms, 1, 1, -1)).flatten(2)
            mixed = (outer @ weight.flatten(0, 1)).transpose(1, 2).flatten(1)
            before = sums[path.i_out]
            sums[path.i_out] = mixed if before is None else before + mixed
        out = [
            features.new_zeros(n_atoms, mul * ir.dim) if part is None else part
            for part, (mul, ir) in zip(sums, product.irreps_out, strict=True)
        ]
        return torch.cat(out, dim=1)
