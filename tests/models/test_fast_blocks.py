"""Blocks that take less time are MACE's own: values, forces and the gradients that training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from conftest import build_tiny
from mace.modules.symmetric_contraction import Contraction, SymmetricContraction

from retemper.models import mace, model_file
from retemper.models.contraction import SparseContraction
from retemper.models.convolution import Convolution, neighbours
from retemper.models.element_mixing import ElementMixing
from retemper.models.fast_blocks import fast, verified

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
        with fast(module) as number:
            assert number == len(module.contractions)
            quick = gradients(module, x, y)
            assert list(module.state_dict()) == names
        assert all("forward" not in vars(part) for part in module.modules() if isinstance(part, Contraction))
    finally:
        torch.set_default_dtype(before)
    for one, two in zip(own, quick, strict=True):
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
        with fast(module):
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
    with fast(module):
        matrices = module.contractions[0].forward.matrices
    assert [int((matrix != 0).any(0).sum()) for matrix in matrices] == [1, 4, 4]


def test_a_contraction_that_differs_is_left_to_mace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inference compares each with MACE's own first."""
    right = SparseContraction.__call__
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        modules = [SymmetricContraction(o3.Irreps("5x0e + 5x1o"), o3.Irreps("5x0e"), 3, num_elements=3) for _ in "ab"]
    finally:
        torch.set_default_dtype(before)
    with verified(modules[0]) as number:
        assert number == 1
    monkeypatch.setattr(SparseContraction, "__call__", lambda self, x, y: right(self, x, y) * (1 + 1e-8))
    with verified(modules[1]) as number:
        assert number == 0


def convolve(product: torch.nn.Module, *arguments: torch.Tensor) -> torch.Tensor:
    """As MACE does: the product for every edge, then the sum."""
    features, harmonics, weights, edges = arguments
    messages = product(features[edges[0]], harmonics, weights)
    return torch.zeros(len(features), messages.shape[1], dtype=messages.dtype).index_add(0, edges[1], messages)


def second_order(out: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The output, its first derivatives, and the derivatives of these as in a loss of forces."""
    first = torch.autograd.grad(out.pow(2).sum(), inputs, create_graph=True)
    loss = sum((part.pow(2).sum() for part in first), out.sum())
    return (out, *first, *torch.autograd.grad(loss, inputs))


# Receivers: many neighbours, few, one and none; edges in no order
RECEIVERS = [0] * 9 + [3] * 2 + [1] * 5 + [4] + [6] * 4


@pytest.mark.parametrize("irreps", ["4x0e", "4x0e + 4x1o", "3x0e + 2x1o + 2x2e"])
def test_convolution_is_maces(irreps: str) -> None:
    from mace.modules.irreps_tools import tp_out_irreps_with_instructions

    features, harmonics = o3.Irreps(irreps), o3.Irreps("0e + 1o + 2e + 3o")
    out, instructions = tp_out_irreps_with_instructions(features, harmonics, o3.Irreps("4x0e + 4x1o + 4x2e + 4x3o"))
    product = o3.TensorProduct(features, harmonics, out, instructions, shared_weights=False, internal_weights=False)
    generator = torch.Generator().manual_seed(1)
    receivers = torch.tensor(RECEIVERS)[torch.randperm(len(RECEIVERS), generator=generator)]
    senders = torch.randint(7, receivers.shape, generator=generator)
    inputs = [
        torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in (
            (7, features.dim), (len(receivers), harmonics.dim), (len(receivers), product.weight_numel),
        )
    ]  # fmt: skip
    edges = torch.stack([senders, receivers])
    own = second_order(convolve(product.double(), *inputs, edges), inputs)
    quick = second_order(Convolution(product, inputs[0])(*inputs, edges), inputs)
    assert not own[0][2].any() and own[0][0].abs().max() > 0
    for one, two in zip(own, quick, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-11, atol=1e-11 * float(one.detach().abs().max()))


def test_atoms_with_few_neighbours_do_not_get_places_for_many() -> None:
    groups = neighbours(torch.tensor(RECEIVERS), 7)
    assert [group.there.sum(1).tolist() for group in groups] == [[9, 5], [4, 2], [1], [0, 0]]
    assert [group.atoms.tolist() for group in groups] == [[0, 1], [6, 3], [4], [2, 5]]
    assert sorted(torch.cat([group.edges[group.there] for group in groups]).tolist()) == list(range(len(RECEIVERS)))


@pytest.mark.parametrize("irreps", ["4x0e", "4x0e + 3x1o"])
def test_mixing_by_element_is_maces(irreps: str) -> None:
    product = o3.FullyConnectedTensorProduct(
        o3.Irreps(irreps), o3.Irreps("6x0e"), o3.Irreps(f"5x0e + {irreps}")
    ).double()
    x = torch.randn(5, product.irreps_in1.dim, dtype=torch.float64, requires_grad=True)
    elements = torch.eye(6, dtype=torch.float64)[[4, 1, 1, 4, 0]]
    own = second_order(product(x, elements), [x, product.weight])
    quick = second_order(ElementMixing(product)(x, elements), [x, product.weight])
    for one, two in zip(own, quick, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-11, atol=1e-11 * float(one.detach().abs().max()))


def test_a_convolution_that_differs_is_left_to_mace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Convolution.__call__
    models = [model_file.load(build_tiny(tmp_path / name, ["Default"])) for name in ("a.model", "b.model")]
    with verified(models[0]) as every:
        assert all(block.conv_fusion for block in models[0].interactions)
    monkeypatch.setattr(Convolution, "__call__", lambda self, *given: right(self, *given) * (1 + 1e-8))
    with verified(models[1]) as number:
        assert number == every - len(models[1].interactions)
        assert not any(hasattr(block, "conv_fusion") for block in models[1].interactions)


def test_free_atoms_and_structures_together(tmp_path: Path) -> None:
    """Atoms without neighbours, alone and beside others, have the energies and forces of MACE."""
    model = model_file.load(build_tiny(tmp_path / "a.model", ["Default"])).double()
    for frames in ([Atoms("H")], [Atoms("H"), molecule("CH3OH"), Atoms("OH", [[0, 0, 0], [40, 0, 0]])]):
        with mace.default_dtype("float64"):
            _, batch = next(mace.batches(model, frames, "Default", "cpu"))
            own = model(dict(batch), compute_force=True)
            for parameter in model.parameters():
                parameter.requires_grad = False  # as where a model predicts
            with fast(model):
                quick = model(dict(batch), compute_force=True)
        for name in ("energy", "forces"):
            torch.testing.assert_close(quick[name], own[name], rtol=1e-10, atol=1e-10)
