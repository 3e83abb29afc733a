"""Models of other programs: opened without running, they give the numbers that `torch.load` gives."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import architectures
import numpy as np
import pytest
from architectures import answers, run
from ase.io import read
from conftest import ROOT, build_tiny

from retemper.models import building, describing, inspection, model_file, model_writing, opening, predict


def own(heads: Sequence[str] = ("Default",), **more: Any) -> Callable[[Path], Path]:
    return lambda path: build_tiny(path, list(heads), **more)


def density(path: Path) -> Path:
    from mace.modules import interaction_classes

    first, others = "RealAgnosticDensityInteractionBlock", "RealAgnosticDensityResidualInteractionBlock"
    classes = {"interaction_cls_first": interaction_classes[first], "interaction_cls": interaction_classes[others]}
    return own(**classes, pair_repulsion=True, distance_transform="Agnesi")(path)


def attention(path: Path) -> Path:
    from mace.modules import interaction_classes

    first, others = "RealAgnosticInteractionBlock", "RealAgnosticAttResidualInteractionBlock"
    classes = {"interaction_cls_first": interaction_classes[first], "interaction_cls": interaction_classes[others]}
    return own(**classes, use_so3=True)(path)


def three_layers(path: Path) -> Path:
    import torch

    rare = {"gate": torch.tanh, "distance_transform": "Soft", "radial_type": "gaussian"}
    return own(**rare, num_interactions=3, correlation=[3, 2, 1])(path)


def unscaled(path: Path) -> Path:
    return build_tiny(path, ["pt_head", "Default"], kind="MACE", pair_repulsion=True)


def legacy(path: Path) -> Path:
    """In single precision, and as torch wrote files before 2020."""
    import torch

    model = torch.load(build_tiny(path, ["Default"]), weights_only=False).float()
    torch.save(model, path, _use_new_zipfile_serialization=False)
    return path


BUILT: dict[str, Callable[[Path], Path]] = {
    "two heads, last layer kept": own(["pt_head", "Default"], keep_last_layer_irreps=True),
    "three layers, rare blocks": three_layers,
    "density, Agnesi, ZBL": density,
    "attention, SO(3)": attention,
    "no scale": unscaled,
    "legacy": legacy,
    "MH-1": architectures.build_mh1,
    "OMOL": architectures.build_omol,
    "mini": lambda path: ROOT / "foundations/mini.model",
    "mini-inorganic": lambda path: ROOT / "foundations/mini-inorganic.model",
    "mini-crystals": lambda path: ROOT / "foundations/mini-crystals.model",
}


@pytest.fixture(scope="module")
def others() -> list[Path]:
    """Real models by others, of releases of MACE since 2022."""
    folder = os.environ.get("RETEMPER_MODELS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RETEMPER_MODELS is not set")
    return sorted(Path(folder).glob("*.model"))


def largest(one: list[np.ndarray], two: list[np.ndarray]) -> float:
    """Largest difference, relative to the largest number of its kind."""
    pairs = zip(one, two, strict=True)
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(a).max())) for a, b in pairs)


@pytest.mark.parametrize("kind", BUILT)
def test_a_model_comes_back_bit_by_bit(kind: str, tmp_path: Path) -> None:
    """From its pickle, from what is written of that, and from a pickle of that."""
    given = BUILT[kind](tmp_path / "given.model")
    right = run(given)
    opened = model_file.load(given)
    description = describing.describe(right)
    assert describing.describe(opened) == description
    assert describing.describe(opening.tree(given.read_bytes(), "given")[0]) == description
    for name, tensor in right.state_dict().items():
        assert (opened.state_dict()[name] == tensor).all() and opened.state_dict()[name].dtype == tensor.dtype
    model_writing.convert(given, tmp_path / "a.safetensors")
    model_writing.convert(tmp_path / "a.safetensors", tmp_path / "b.model")
    exact = answers(right)
    bound = 1e-15 if kind == "no scale" else 0.0  # sums in another order
    for model in (opened, model_file.load(tmp_path / "a.safetensors"), run(tmp_path / "b.model")):
        assert largest(exact, answers(model)) <= bound
    model_writing.convert(tmp_path / "b.model", tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    assert inspection.inspect(tmp_path / "a.safetensors").parameters == inspection.inspect(given).parameters


def test_models_by_others_come_back(others: list[Path], tmp_path: Path) -> None:
    """Files of earlier releases of MACE, which lack attributes and tensors of today's; bit by bit all the same."""
    for path in others:
        model_writing.convert(path, tmp_path / f"{path.stem}.safetensors")
        right = answers(run(path))
        for other in (path, tmp_path / f"{path.stem}.safetensors"):
            assert largest(right, answers(model_file.load(other))) == 0.0
        about = inspection.inspect(path)
        assert about.served and {"heads", "apply_cutoff", "use_so3"} <= set(about.lacks)


@pytest.mark.parametrize(("name", "energy", "force"), [("ec_emc_2023", 8.7, 226), ("ec_emc_gen1_2023", 35, 522)])
def test_a_model_by_others_predicts_what_its_data_say(
    name: str, energy: float, force: float, others: list[Path]
) -> None:
    """Spread of the error of the energy (meV/atom) and RMSE of the forces (meV/A), of 40 frames."""
    folder = others[0].parent
    frames = read(folder / "ec_emc_xtb_test.extxyz", ":40")
    found = predict.predict(folder / f"{name}.model", frames, head="Default", dtype="float64", backend="torch")
    sizes = np.array([len(frame) for frame in frames])
    off = (found.energy - [frame.info["REF_energy"] for frame in frames]) / sizes
    forces = np.concatenate(found.forces) - np.concatenate([frame.arrays["REF_forces"] for frame in frames])
    assert 1000 * off.std() == pytest.approx(energy, abs=0.5)
    assert 1000 * np.sqrt((forces**2).mean()) == pytest.approx(force, abs=1)


def test_opening_is_quiet(tmp_path: Path) -> None:
    """Torch warns of TorchScript's annotations at every block that is built; a user is not told."""
    path = build_tiny(tmp_path / "a.model", ["Default"])
    building._template.cache_clear()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model_file.load(path)
    assert not [str(warning.message) for warning in said if warning.category is UserWarning]
