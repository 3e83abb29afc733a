"""MACE's symmetric contraction without its zeros: the same function of features and weights, computed in less time.

A contraction is a polynomial in the features of an atom, one for each channel. Its tensor of coefficients
U [i, j, k, path] is dense in MACE (``mace.modules.symmetric_contraction``), yet nearly all entries are zero and the
rest are symmetric in i, j, k. Here each product of features that has a coefficient is formed once, and one matrix
product turns these into the paths, which the trained weights then sum. Results differ by rounding alone.

References
----------
I. Batatia et al., Advances in Neural Information Processing Systems 35 (2022), Eq. 10 and 11.
"""

from __future__ import annotations

import itertools
import math

import torch
from mace.modules.symmetric_contraction import Contraction


class SparseContraction:
    """The polynomial of one `Contraction`, whose weights it reads at each call."""

    def __init__(self, contraction: Contraction):
        self.contraction = contraction
        tensors = {nu: contraction.U_tensors(nu).detach() for nu in range(1, contraction.correlation + 1)}
        self.components = 1 if tensors[1].dim() == 2 else len(tensors[1])
        terms = {
            nu: _terms(tensor.reshape(self.components, *tensor.shape[-nu - 1 :])) for nu, tensor in tensors.items()
        }
        device, dtype = tensors[1].device, tensors[1].dtype
        # a product of degree n is one of degree n - 1 times a feature: those must be there, with a coefficient or not
        needed: dict[int, list[tuple[int, ...]]] = {}
        for nu in range(contraction.correlation, 1, -1):
            longer = {product[:-1] for product in needed.get(nu + 1, [])}
            needed[nu] = sorted(set(terms[nu]) | longer)
        features = tensors[1].shape[-2]
        place: dict[tuple[int, ...], int] = {(i,): i for i in range(features)}
        self.steps: list[tuple[torch.Tensor, torch.Tensor]] = []  # of each degree from 2: what times which feature
        self.matrices = [_matrix(terms[1], place, tensors[1].shape[-1] * self.components, dtype, device)]
        for nu in range(2, contraction.correlation + 1):
            first = torch.tensor([place[product[:-1]] for product in needed[nu]], device=device)
            last = torch.tensor([product[-1] for product in needed[nu]], device=device)
            self.steps.append((first, last))
            place = {product: k for k, product in enumerate(needed[nu])}
            paths = tensors[nu].shape[-1] * self.components
            self.matrices.append(_matrix(terms[nu], place, paths, dtype, device))

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As `Contraction.forward`: features x [n_atoms, channels, n], elements y [n_atoms, n_elements] one-hot."""
        n_atoms, channels, n = x.shape
        contraction = self.contraction
        weights = [*reversed(list(contraction.weights)), contraction.weights_max]
        features = product = x.permute(2, 0, 1).reshape(n, n_atoms * channels)
        total = x.new_zeros(self.components, n_atoms, channels)
        for nu, matrix in enumerate(self.matrices, 1):
            if nu > 1:
                first, last = self.steps[nu - 2]
                product = product.index_select(0, first) * features.index_select(0, last)
            if not len(matrix):
                continue  # no coefficient of this degree, and MACE keeps no weights for it
            paths = (matrix @ product).view(self.components, -1, n_atoms, channels)
            weight = weights[nu - 1]
            element_weight = (y @ weight.flatten(1)).view(n_atoms, *weight.shape[1:]).transpose(0, 1)
            total = total + (element_weight * paths).sum(1)
        out: torch.Tensor = total.permute(1, 2, 0).reshape(n_atoms, -1)
        return out


def _terms(tensor: torch.Tensor) -> dict[tuple[int, ...], torch.Tensor]:
    """Coefficients [components * paths] of each product of features: sums over the orders of its factors."""
    degree = tensor.dim() - 2
    symmetric = sum(tensor.permute(0, *order, degree + 1) for order in itertools.permutations(range(1, degree + 1)))
    terms = {}
    for product in itertools.combinations_with_replacement(range(tensor.shape[1]), degree):
        repeats = math.prod(math.factorial(product.count(index)) for index in set(product))
        coefficients = symmetric[(slice(None), *product)] / repeats  # type: ignore[index]
        if coefficients.abs().max() > 0:
            terms[product] = coefficients.flatten()
    return terms


def _matrix(
    terms: dict[tuple[int, ...], torch.Tensor],
    place: dict[tuple[int, ...], int],
    paths: int,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """[components * paths, products]; without rows where there are no terms."""
    matrix = torch.zeros(paths if terms else 0, len(place), dtype=dtype, device=device)
    for product, coefficients in terms.items():
        matrix[:, place[product]] = coefficients
    return matrix
