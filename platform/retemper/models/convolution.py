"""MACE's convolution as matrix products: the same function of features, edges and weights, computed in less time.

The message to atom i is a sum over its neighbours j of radial weights w, features x of j and spherical harmonics Y of
the edge, coupled by Clebsch-Gordan coefficients C. Channels u do not mix:

    m_i [u, m3] = sum over j and m1 of  (w_ij [u] x_j [u, m1])  (sum over m2 of C [m1, m2, m3] Y_ij [m2])

MACE forms the whole product for every edge, and then adds the edges up. Here the right bracket, which has no channel,
is formed first; the sum over neighbours and m1 is then one matrix product for each atom and path. What has a value for
each edge, channel and component of the message is never stored. Results differ by rounding alone.

References
----------
I. Batatia et al., Advances in Neural Information Processing Systems 35 (2022), Eq. 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mace.modules.blocks import InteractionBlock

from e3nn import o3  # isort: skip  (after mace: see its weights_only handling)


def is_by_channel(block: InteractionBlock) -> bool:
    """Whether the block's convolution is that of e3nn, in which channels do not mix."""
    product = block.conv_tp
    return (
        isinstance(product, o3.TensorProduct)
        and not hasattr(block, "conv_fusion")
        and [path.i_out for path in product.instructions] == list(range(len(product.irreps_out)))
        and all(path.connection_mode == "uvu" and path.has_weight for path in product.instructions)
        and all(mul == 1 for mul, _ in product.irreps_in2)
    )


class Convolution:
    """The convolution of one interaction block with `is_by_channel`: product for each edge, and sum over the edges."""

    def __init__(self, product: o3.TensorProduct, like: torch.Tensor):
        """`like` has the dtype and device of the features."""
        self.features = [(mul, ir.dim) for mul, ir in product.irreps_in1]
        self.paths = [
            (path.i_in1, mul, ir.dim) for path, (mul, ir) in zip(product.instructions, product.irreps_out, strict=True)
        ]  # of each: which features, channels, components of the message
        self.coefficients, self.sizes = _coefficients(product, like)

    def __call__(
        self, features: torch.Tensor, harmonics: torch.Tensor, weights: torch.Tensor, edges: torch.Tensor
    ) -> torch.Tensor:
        """Messages [n_atoms, irreps].

        Parameters
        ----------
        features
            [n_atoms, irreps]
        harmonics
            [n_edges, (l_max + 1)^2]
        weights
            [n_edges, paths * channels], of the radial functions.
        edges
            [2, n_edges] from sender to receiver.
        """
        by_component = [
            part.view(len(features), mul, dim).transpose(1, 2).reshape(len(features), dim * mul)
            for part, (mul, dim) in zip(
                features.split([mul * dim for mul, dim in self.features], dim=1), self.features, strict=True
            )
        ]
        groups = neighbours(edges[1], len(features))
        messages = [self._messages(by_component, harmonics, weights, edges[0], group) for group in groups]
        back = torch.argsort(torch.cat([group.atoms for group in groups]))
        return torch.cat(messages).index_select(0, back)

    def _messages(
        self,
        features: list[torch.Tensor],
        harmonics: torch.Tensor,
        weights: torch.Tensor,
        senders: torch.Tensor,
        group: Neighbours,
    ) -> torch.Tensor:
        """Messages [n, irreps] to the atoms of a group, of features [n_atoms, m1 * channels]."""
        n = len(group.atoms)
        if not group.edges.numel():
            none = harmonics[:0].sum()  # of which derivatives by the positions can be asked, and are zero
            return none.expand(n, sum(mul * dim for _, mul, dim in self.paths))
        edges = group.edges.flatten()
        present = group.there.view(-1, 1).to(harmonics)
        coupled = ((harmonics.index_select(0, edges) * present) @ self.coefficients).split(self.sizes, dim=1)
        radial = weights.index_select(0, edges).split([mul for _, mul, _ in self.paths], dim=1)
        from_senders = [part.index_select(0, senders.index_select(0, edges)) for part in features]
        messages = []
        for (which, mul, dim), weight, coupling in zip(self.paths, radial, coupled, strict=True):
            weighted = from_senders[which].view(len(edges), -1, mul) * weight.unsqueeze(1)
            message = weighted.view(n, -1, mul).transpose(1, 2) @ coupling.reshape(n, -1, dim)
            messages.append(message.flatten(1))
        return torch.cat(messages, dim=1)


@torch.no_grad()
def _coefficients(product: o3.TensorProduct, like: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """[harmonics, m1 and m3 of all paths], and how many of each path: the product's own, of unit vectors.

    A model that was made in single precision has coefficients of single precision, in whatever it is computed.
    """
    n_harmonics = product.irreps_in2.dim
    harmonics = torch.eye(n_harmonics).to(like)
    coefficients = []
    for path, out in zip(product.instructions, product.irreps_out.slices(), strict=True):
        begin = product.irreps_in1.slices()[path.i_in1].start
        dim, of_message = product.irreps_in1[path.i_in1].ir.dim, product.irreps_out[path.i_out].ir.dim
        units = torch.zeros(dim, product.irreps_in1.dim).to(like)
        units[torch.arange(dim), begin + torch.arange(dim)] = 1  # the first channel
        features = units.repeat(n_harmonics, 1)  # [harmonics * m1]
        messages = product(
            features, harmonics.repeat_interleave(dim, 0), like.new_ones(len(features), product.weight_numel)
        )
        coefficients.append(messages[:, out.start : out.start + of_message].reshape(n_harmonics, -1))
    return torch.cat(coefficients, dim=1), [part.shape[1] for part in coefficients]


@dataclass(frozen=True)
class Neighbours:
    """Atoms with similar numbers of neighbours, in places for as many as the one with most has."""

    atoms: torch.Tensor  # [n]
    edges: torch.Tensor  # [n, places] indices of edges to each; 0 where none is
    there: torch.Tensor  # [n, places] whether an edge is there


def neighbours(receivers: torch.Tensor, n_atoms: int) -> list[Neighbours]:
    """Atoms by how many edges they receive; at least half of the places of each atom are taken."""
    counts = torch.bincount(receivers, minlength=n_atoms)
    order = torch.argsort(receivers, stable=True)
    first = counts.cumsum(0) - counts  # of each atom's edges in `order`
    atoms = torch.argsort(counts, descending=True, stable=True)
    left = counts[atoms].tolist()
    groups, begin = [], 0
    while begin < n_atoms:
        most = left[begin]
        end = next((k for k in range(begin, n_atoms) if 2 * left[k] < most), n_atoms)
        members = atoms[begin:end]
        place = torch.arange(most, device=receivers.device)
        present = place < counts[members].unsqueeze(1)
        index = torch.where(present, first[members].unsqueeze(1) + place, 0)
        groups.append(Neighbours(members, order[index] if most else index, present))
        begin = end
    return groups
