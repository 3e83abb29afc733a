"""Batched inference against MACE's own calculator, and what it refuses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from conftest import TINY_ELEMENTS, build_tiny

from retemper.core.errors import RetemperError
from retemper.models import mace, predict


def rattled(atoms: Atoms, seed: int) -> Atoms:
    atoms.rattle(0.06, seed=seed)
    return atoms


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    """Molecules, crystals (small skewed cells too), a slab and a free atom, sizes not in order."""
    made = [rattled(molecule(name), i) for i, name in enumerate(["CH3CH2OH", "H2O", "NH3", "HCl", "CH3Cl"])]
    made.append(rattled(bulk("NaCl", "rocksalt", a=5.6, cubic=True), 7))
    made.append(rattled(bulk("NaCl", "rocksalt", a=5.6), 8))
    made.append(Atoms("O"))
    slab = fcc111("Na", (2, 2, 2), a=5.0, vacuum=8.0)
    made.append(rattled(slab, 9))
    made.append(rattled(bulk("C", "diamond", a=3.6), 10))
    return made


def calculator_results(model: Path, frames: list[Atoms], head: str) -> list[tuple[float, np.ndarray, np.ndarray]]:
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(model), device="cpu", default_dtype="float64", head=head)
    results = []
    for frame in frames:
        atoms = frame.copy()
        atoms.calc = calculator
        results.append((atoms.get_potential_energy(), atoms.get_forces(), calculator.results["stress"]))
    return results


@pytest.mark.parametrize(
    ("fixture", "head"), [("tiny_model", "Default"), ("tiny_multihead", "Default"), ("tiny_multihead", "pt_head")]
)
def test_equals_mace_calculator(
    fixture: str, head: str, frames: list[Atoms], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = request.getfixturevalue(fixture)
    monkeypatch.setitem(mace.MAX_EDGES, "cpu", 150)  # several batches
    predicted = predict.predict(model, frames, head=head, backend="torch")
    assert predicted.backend == "torch"
    for i, (energy, forces, stress) in enumerate(calculator_results(model, frames, head)):
        assert predicted.energy[i] == pytest.approx(energy, abs=1e-8)
        np.testing.assert_allclose(predicted.forces[i], forces, atol=1e-8)
        if frames[i].pbc.all():
            xx, yy, zz, yz, xz, xy = stress
            np.testing.assert_allclose(predicted.stress[i], [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], atol=1e-8)
            assert np.abs(stress).max() > 1e-6
        else:
            assert np.isnan(predicted.stress[i]).all()


def test_stress_is_the_strain_derivative(tiny_model: Path) -> None:
    """Stress = (1/V) dE/d(strain), by central differences."""
    crystal = rattled(bulk("NaCl", "rocksalt", a=5.5), 3)
    strained = []
    h = 1e-4
    for sign in (1, -1):
        atoms = crystal.copy()
        atoms.set_cell(crystal.cell.array @ (np.eye(3) + sign * h * np.diag([1.0, 0, 0])), scale_atoms=True)
        strained.append(atoms)
    energy = predict.predict(tiny_model, strained, backend="torch").energy
    derivative = (energy[0] - energy[1]) / (2 * h) / crystal.get_volume()
    stress = predict.predict(tiny_model, [crystal], backend="torch").stress[0]
    assert stress[0, 0] == pytest.approx(derivative, rel=1e-5)


def test_the_default_head_is_not_the_first(tiny_multihead: Path, frames: list[Atoms]) -> None:
    """Without a head the target's is used, never the replay head that comes first in the file."""
    default = predict.predict(tiny_multihead, frames[:2], backend="torch").energy
    named = predict.predict(tiny_multihead, frames[:2], head="Default", backend="torch").energy
    first = predict.predict(tiny_multihead, frames[:2], head="pt_head", backend="torch").energy
    np.testing.assert_array_equal(default, named)
    assert (np.abs(default - first) > 0.1).all()
    assert mace.heads(tiny_multihead) == ["pt_head", "Default"]


def test_heads_that_do_not_exist(tiny_multihead: Path, frames: list[Atoms], tmp_path: Path) -> None:
    with pytest.raises(RetemperError, match="did you mean 'Default'"):
        predict.predict(tiny_multihead, frames[:1], head="Defualt")
    ambiguous = build_tiny(tmp_path / "model.model", ["pbe", "r2scan"])
    with pytest.raises(RetemperError, match="one of pbe, r2scan"):
        predict.predict(ambiguous, frames[:1])


def test_elements_and_atomic_energies(tiny_model: Path, tiny_multihead: Path) -> None:
    assert mace.elements(tiny_model) == list(TINY_ELEMENTS)
    expected = dict(zip(TINY_ELEMENTS, np.linspace(-30.0, -1.0, 6), strict=True))
    assert mace.atomic_energies(tiny_model) == pytest.approx(expected)
    shifted = {z: e + 0.5 for z, e in expected.items()}
    assert mace.atomic_energies(tiny_multihead) == pytest.approx(shifted)
    assert mace.atomic_energies(tiny_multihead, "pt_head") == pytest.approx(expected)


def test_what_is_refused_names_the_frame(tiny_model: Path, frames: list[Atoms]) -> None:
    with pytest.raises(RetemperError, match=r"frame 1 \(Cu.*lacks: Cu"):
        predict.predict(tiny_model, [frames[0], bulk("Cu")])
    lost = molecule("H2O")
    lost.positions[0] = np.nan
    with pytest.raises(RetemperError, match=r"frame 0 \(OH2\)"):
        predict.predict(tiny_model, [lost])
    flat = Atoms("Na", cell=[4.0, 4.0, 0.0], pbc=True)
    with pytest.raises(RetemperError, match="periodic along 3 directions but its cell does not span them"):
        predict.predict(tiny_model, [flat])
    with pytest.raises(RetemperError, match="did you mean 'torch'"):
        predict.predict(tiny_model, frames, backend="troch")


def test_an_output_that_is_not_finite_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    """A model with an absurd oxygen, two of which overflow: the frame with two is named."""
    import torch

    module = mace.load(tiny_model)
    broken = torch.load(tiny_model, weights_only=False)
    broken.atomic_energies_fn.atomic_energies[0, 3] = 1e308
    torch.save(broken, tmp_path / "broken.model")
    assert module.atomic_energies_fn.atomic_energies.isfinite().all()
    with pytest.raises(RetemperError, match=r"frame 1 \(CO2, config_type gas\) are not finite"):
        gas = molecule("CO2")
        gas.info["config_type"] = "gas"
        predict.predict(tmp_path / "broken.model", [molecule("CH4"), gas, molecule("H2O")], backend="torch")


def test_files_that_are_not_models(tmp_path: Path) -> None:
    import torch

    (tmp_path / "text.model").write_text("hello")
    torch.save({"weights": 1}, tmp_path / "dict.model")
    for name, message in (("text", "is no model file"), ("dict", "is not a MACE model"), ("none", "does not exist")):
        with pytest.raises(RetemperError, match=message):
            mace.load(tmp_path / f"{name}.model")


def test_a_model_is_loaded_once_and_again_when_it_changes(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    path = tmp_path / "model.model"
    shutil.copy(tiny_model, path)
    first = mace.load(path)
    assert mace.load(path) is first
    before = predict.predict(path, [molecule("H2O")], backend="torch").energy[0]
    changed = torch.load(path, weights_only=False)
    changed.atomic_energies_fn.atomic_energies += 1.0
    torch.save(changed, path)
    os.utime(path, ns=(1, 1))
    after = predict.predict(path, [molecule("H2O")], backend="torch").energy[0]
    assert after == pytest.approx(before + 3.0)


def test_torch_is_left_as_it_was(tiny_model: Path, frames: list[Atoms]) -> None:
    import torch

    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        predict.predict(tiny_model, frames[:1], dtype="float64", backend="torch")
        predict.predict(tiny_model, frames[:1], dtype="float32", backend="torch")
        with pytest.raises(ValueError, match="inside"), mace.default_dtype("float32"):
            raise ValueError("inside")
        assert torch.get_default_dtype() == dtype


def test_no_frames(tiny_model: Path) -> None:
    predicted = predict.predict(tiny_model, [])
    assert predicted.energy.shape == (0,) and predicted.forces == [] and predicted.stress.shape == (0, 3, 3)


def test_descriptors_are_maces(tiny_model: Path, frames: list[Atoms]) -> None:
    from mace.calculators import MACECalculator

    from retemper.models.descriptors import mean_descriptors

    calculator = MACECalculator(model_paths=str(tiny_model), device="cpu", default_dtype="float64")
    got = mean_descriptors(tiny_model, frames, dtype="float64")
    expected = [calculator.get_descriptors(frame).mean(axis=0) for frame in frames]
    assert got.shape == (len(frames), 16)
    np.testing.assert_allclose(got, expected, atol=1e-12)
