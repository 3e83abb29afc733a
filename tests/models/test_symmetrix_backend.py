"""The C++ evaluator against torch, and the fall back to torch when it may not be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from retemper.core.errors import RetemperError
from retemper.models import mace, predict, referee, symmetrix
from retemper.models.predictions import Predictions

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


def test_the_extraction_warns_of_nothing(model: Path, recwarn: pytest.WarningsRecorder) -> None:
    """TorchScript would, once for each class of MACE's."""
    import warnings

    warnings.simplefilter("always")
    symmetrix._extract(model, "Default", [1, 8])
    assert not recwarn.list


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetrix, "CACHE", cache)


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
    assert {path.name.split("-")[1] for path in cache.glob("*.json") if not path.name.startswith("verdict")} == {head}


def test_torch_takes_over_when_they_differ(
    model: Path, frames: list[Atoms], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(referee, "FORCES", 1e-15)
    predicted = predict.predict(model, frames, head="Default", backend="symmetrix")
    assert predicted.backend == "torch"
    assert "symmetrix is off by" in capsys.readouterr().out


def test_a_pair_of_elements_that_is_wrong_is_found(
    model: Path, frames: list[Atoms], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Forces between H and Na alone are off: no frame of the set has both, the comparison of the model finds it."""
    right = symmetrix._evaluate

    def wrong(evaluator: Any, some: list[Atoms], graphs: list[Any]) -> list[tuple[float, np.ndarray, np.ndarray]]:
        values = right(evaluator, some, graphs)
        for atoms, (_, forces, _) in zip(some, values, strict=True):
            if {1, 11} <= set(atoms.numbers.tolist()):
                forces[0] += 1e-3 * (1 + np.abs(forces).max())
        return values

    assert not referee.judge(model, "Default", (1, 8, 11), [], tmp_path).objection
    monkeypatch.setattr(symmetrix, "_evaluate", wrong)
    assert not referee.judge(model, "Default", (1, 8, 11), [], tmp_path).objection  # remembered
    assert not referee.judge(model, "Default", (1, 8), [], tmp_path).objection
    verdict = referee.judge(model, "Default", (1, 8, 11), [], tmp_path / "other")
    assert verdict.worst == pytest.approx(100, rel=0.01) and "off by" in verdict.objection


def test_a_damaged_verdict_is_put_aside(model: Path, tmp_path: Path) -> None:
    first = referee.judge(model, "Default", (1, 8), [], tmp_path)
    (path,) = tmp_path.glob("verdict-*.json")
    path.write_text(path.read_text().replace(str(first.worst), "0.5"))
    assert referee.judge(model, "Default", (1, 8), [], tmp_path) == first
    assert list(tmp_path.glob("verdict-*.corrupt"))


def test_one_frame_that_is_off_is_torchs_and_the_others_are_kept(
    model: Path, frames: list[Atoms], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fault lies where the atoms are nearest, which the referee always looks at."""
    torch = predict.predict(model, frames, head="Default", backend="torch")
    exact = symmetrix.predict

    def off(*arguments: Any) -> tuple[Predictions, np.ndarray]:
        fast, closest = exact(*arguments)
        fast.forces[int(closest.argmin())][0] += 0.1
        return fast, closest

    referee.judge(model, "Default", (1, 8, 11), [], symmetrix.CACHE)  # of the model, which is right
    monkeypatch.setattr(symmetrix, "predict", off)
    predicted = predict.predict(model, frames, head="Default", backend="symmetrix")
    assert predicted.backend == "symmetrix"
    assert "differs from torch on 1 structures" in capsys.readouterr().out
    for one, two in zip(predicted.forces, torch.forces, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


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
    assert predict.worthwhile(model, few, symmetrix.element_sets(few)) == []
    assert predict.worthwhile(model, many, symmetrix.element_sets(many)) == [(1, 8)]
    mixed = [*many, Atoms("Na")]
    assert predict.worthwhile(model, mixed, symmetrix.element_sets(mixed)) == [(1, 8)]
