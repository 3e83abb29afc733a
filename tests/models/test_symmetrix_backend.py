"""The C++ evaluator against torch, and the fall back to torch when it may not be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from retemper.core.errors import RetemperError
from retemper.models import mace, predict, symmetrix

pytest.importorskip("symmetrix")
HEADS = ["pt_head", "Default"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest architecture that symmetrix knows (l_max 3, correlation 3), two heads."""
    import torch
    from mace import modules
    from e3nn import o3  # isort: skip

    path = tmp_path_factory.mktemp("symmetrix") / "model.model"
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    with mace.default_dtype("float64"):
        torch.manual_seed(0)
        module = modules.ScaleShiftMACE(
            r_max=4.0,
            num_bessel=6,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=block,
            interaction_cls_first=block,
            num_interactions=2,
            num_elements=3,
            hidden_irreps=o3.Irreps("8x0e"),
            MLP_irreps=o3.Irreps("8x0e"),
            radial_MLP=[16, 16],
            atomic_energies=np.array([[-1.0, -2.0, -3.0], [-1.5, -2.5, -3.5]]),
            avg_num_neighbors=8.0,
            atomic_numbers=[1, 8, 11],
            correlation=3,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=[20.0, 30.0],
            atomic_inter_shift=[0.1, 0.2],
            heads=HEADS,
        )
        torch.save(module, path)
    return path


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    made = []
    for i in range(4):
        water = molecule("H2O")
        water.rattle(0.1, seed=i)
        made.append(water)
        crystal = bulk("Na", cubic=True)
        crystal.rattle(0.1, seed=i)
        made.append(crystal)
    hydrate = bulk("Na", "sc", a=3.6) * (2, 1, 1)
    hydrate.symbols[1] = "O"
    hydrate.rattle(0.1, seed=9)
    return [*made, hydrate, Atoms("O")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetrix, "CACHE", cache)
    monkeypatch.setattr(symmetrix, "REFEREES", 3)  # the other frames keep symmetrix's own numbers


def test_equals_torch(model: Path, frames: list[Atoms], cache: Path) -> None:
    head = HEADS[1]  # not the first of the file
    torch = predict.predict(model, frames, head=head, backend="torch")
    fast = predict.predict(model, frames, head=head, backend="symmetrix")
    assert fast.backend == "symmetrix"
    sizes = np.array([len(frame) for frame in frames])
    assert (np.abs(fast.energy - torch.energy) / sizes).max() < 1e-6
    assert max(np.abs(a - b).max() for a, b in zip(fast.forces, torch.forces, strict=True)) < 1e-5
    np.testing.assert_array_equal(np.isnan(fast.stress), np.isnan(torch.stress))
    assert np.nanmax(np.abs(fast.stress - torch.stress)) < 1e-6
    assert np.nanmax(np.abs(torch.stress)) > 1e-3
    assert fast.energy.tolist() != torch.energy.tolist()  # it was not torch after all
    assert [path.name.split("-")[1] for path in cache.glob("*.json")] == [head]


def test_torch_takes_over_when_they_differ(
    model: Path, frames: list[Atoms], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(symmetrix.TOLERANCE, "forces", 1e-15)
    predicted = predict.predict(model, frames, head="Default", backend="symmetrix")
    assert predicted.backend == "torch"
    assert "symmetrix differs from torch on frame" in capsys.readouterr().out


def test_unsupported_models_use_torch(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predicted = predict.predict(tiny_model, [molecule("H2O")], backend="symmetrix")
    assert predicted.backend == "torch"
    assert "symmetrix does not support" in capsys.readouterr().out


def test_asked_for_where_it_cannot_run(model: Path) -> None:
    with pytest.raises(RetemperError, match="dtype is float32"):
        predict.predict(model, [molecule("H2O")], head="Default", dtype="float32", backend="symmetrix")


def test_auto_weighs_the_cost(model: Path) -> None:
    """Few atoms, or many sets of elements, are not worth an extraction; many atoms of few elements are."""
    water = molecule("H2O")
    water.set_cell([3.0, 3.0, 3.0])
    water *= (5, 5, 4)
    few, many = [water] * 10, [water] * 2_000
    assert symmetrix._worthwhile(model, few, symmetrix._groups(few)) == []
    assert symmetrix._worthwhile(model, many, symmetrix._groups(many)) == [(1, 8)]
    mixed = [*many, Atoms("Na")]
    assert symmetrix._worthwhile(model, mixed, symmetrix._groups(mixed)) == [(1, 8)]
