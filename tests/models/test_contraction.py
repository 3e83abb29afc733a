"""The contraction without zeros is MACE's own: values, forces and the gradients that training needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mace.modules.symmetric_contraction import Contraction, SymmetricContraction

from retemper.models.sparse_contraction import Sparse, sparse, verified

from e3nn import o3  # isort: skip  (after mace: see its weights_only handling)

ATOMS, CHANNELS, ELEMENTS = 7, 5, 3


def gradients(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[Any, ...]:
    """Output, its gradient by the features, and gradients of that by features and weights (as in a force loss)."""
    out = module(x, y)
    (force,) = torch.autograd.grad(out.pow(2).sum(), x, create_graph=True)
    return out, force, *torch.autograd.grad(force.pow(2).sum() + out.sum(), [x, *module.parameters()])


@pytest.mark.parametrize("correlation", [1, 2, 3])
@pytest.mark.parametrize("irreps_out", ["5x0e", "5x0e + 5x1o", "5x2e"])
def test_equal_to_mace(irreps_out: str, correlation: int) -> None:
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        module = SymmetricContraction(
            o3.Irreps("5x0e + 5x1o + 5x2e"), o3.Irreps(irreps_out), correlation, num_elements=ELEMENTS
        )
        x = torch.randn(ATOMS, CHANNELS, 9, requires_grad=True)
        y = torch.nn.functional.one_hot(torch.arange(ATOMS) % ELEMENTS, ELEMENTS).double()
        own = gradients(module, x, y)
        names = list(module.state_dict())
        with sparse(module) as number:
            assert number == len(module.contractions)
            fast = gradients(module, x, y)
            assert list(module.state_dict()) == names
        assert all("forward" not in vars(part) for part in module.modules() if isinstance(part, Contraction))
    finally:
        torch.set_default_dtype(before)
    for one, two in zip(own, fast, strict=True):
        assert one.shape == two.shape and one.abs().max() > 0
        torch.testing.assert_close(two, one, rtol=1e-11, atol=1e-11 * float(one.abs().max()))


def test_a_degree_without_coefficients() -> None:
    """No pseudovector comes of one or two factors among a scalar, a vector v and a tensor T; v x Tv is the first."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        module = SymmetricContraction(o3.Irreps("2x0e + 2x1o + 2x2e"), o3.Irreps("2x1e"), 3, num_elements=1)
        x, y = torch.randn(4, 2, 9), torch.ones(4, 1)
        own = module(x, y)
        with sparse(module):
            torch.testing.assert_close(module(x, y), own)
            assert len(module.contractions[0].forward.matrices[0]) == 0
    finally:
        torch.set_default_dtype(before)
    assert own.abs().max() > 0


def test_as_many_products_as_counted_by_hand() -> None:
    """Invariants of one scalar s and one vector v to third order: s; s2, v.v; s3, s v.v: 1, 4 and 4 products."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        module = SymmetricContraction(o3.Irreps("2x0e + 2x1o"), o3.Irreps("2x0e"), 3, num_elements=1)
    finally:
        torch.set_default_dtype(before)
    with sparse(module):
        matrices = module.contractions[0].forward.matrices
    assert [int((matrix != 0).any(0).sum()) for matrix in matrices] == [1, 4, 4]


def test_a_contraction_that_differs_is_left_to_mace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inference compares each with MACE's own first."""
    right = Sparse.__call__
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        modules = [SymmetricContraction(o3.Irreps("5x0e + 5x1o"), o3.Irreps("5x0e"), 3, num_elements=3) for _ in "ab"]
    finally:
        torch.set_default_dtype(before)
    with verified(modules[0]) as number:
        assert number == 1
    monkeypatch.setattr(Sparse, "__call__", lambda self, x, y: right(self, x, y) * (1 + 1e-8))
    with verified(modules[1]) as number:
        assert number == 0
