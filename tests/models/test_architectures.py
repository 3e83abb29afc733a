"""Every strategy on foundations of other architectures: readouts with biases, several heads, charge and spin."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import MH1_HEADS, build_mh1, build_omol
from conftest import build_tiny
from trainings import make_files, molecules

from retemper.data.frames import read_frames
from retemper.finetune.mace import adapters
from retemper.models import architecture, fast_blocks, mace, predict

BUILT = {"mh1": (build_mh1, MH1_HEADS[1]), "omol": (build_omol, None)}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Foundation, target and replay sets of each architecture."""
    made = {}
    for kind, (build, head) in BUILT.items():
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = make_files(folder, build(folder / "foundation.model"), head, molecules())
    return made


@pytest.mark.parametrize("kind", list(BUILT))
def test_scratch_is_the_very_architecture(kind: str, sets: dict[str, Any], tmp_path: Path) -> None:
    """With the foundation's weights the random model of scratch is the foundation: same names, shapes and energies."""
    files = sets[kind]
    foundation = torch.load(files["model"], weights_only=False)
    config = architecture.config(foundation)
    again = type(foundation)(**config)
    again.load_state_dict(foundation.state_dict())
    torch.save(again, tmp_path / "again.model")
    frames = read_frames(files["folder"] / "valid.extxyz")
    before, after = (
        predict.predict(path, frames, head=files["head"], backend="torch")
        for path in (files["model"], tmp_path / "again.model")
    )
    np.testing.assert_allclose(after.energy, before.energy, atol=1e-9)
    np.testing.assert_allclose(np.concatenate(after.forces), np.concatenate(before.forces), atol=1e-9)


def test_a_body_order_for_each_layer_is_copied(tmp_path: Path) -> None:
    """Correlation 3 in the first layer and 2 in the second: MACE reads 3 for both."""
    model = torch.load(build_tiny(tmp_path / "model.model", ["Default"], correlation=[3, 2]), weights_only=False)
    config = architecture.config(model)
    assert config["correlation"] == [3, 2] and architecture.flags(config)["correlation"] == 3
    assert any("[3, 2]" in what for what in architecture.unflagged(config))


@pytest.mark.parametrize("kind", list(BUILT))
def test_merged_adapters_are_the_adapters(kind: str, sets: dict[str, Any], tmp_path: Path) -> None:
    """Energies and forces before and after merging agree, for adapters that change them by far more."""
    from mace.modules.lora import inject_LoRAs

    torch.manual_seed(1)
    model = torch.load(sets[kind]["model"], weights_only=False)
    frames = read_frames(sets[kind]["folder"] / "valid.extxyz")
    with mace.default_dtype("float64"):
        _, batch = next(mace.batches(model, frames, sets[kind]["head"] or "omol", "cpu"))
        plain = outputs(model, batch)
        inject_LoRAs(model, rank=2, alpha=4)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=1.0)
        adapted = outputs(model, batch)
        adapters.merge(model)
        merged = outputs(model, batch)
    assert not any("lora_" in name for name in model.state_dict())
    for before, with_adapters, after in zip(plain, adapted, merged, strict=True):
        assert (with_adapters - before).abs().max() > 1e-3
        torch.testing.assert_close(after, with_adapters, rtol=0, atol=1e-6 * float(with_adapters.abs().max()))


def outputs(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies less reference energies, and forces."""
    with architecture.addition(model):
        found = model(dict(batch), training=False, compute_force=True)
    return found["interaction_energy"].detach(), found["forces"].detach()


def test_addition_to_what_torchscript_returned(sets: dict[str, Any]) -> None:
    """MACE's own addition fails in the second step; with a copy gradients are those without TorchScript's optimiser."""
    frames = read_frames(sets["omol"]["folder"] / "valid.extxyz")

    def steps(within: Any = contextlib.nullcontext) -> list[dict[str, torch.Tensor]]:
        one = torch.load(sets["omol"]["model"], weights_only=False)
        found = []
        for _ in range(4):
            one.zero_grad()
            own = {**batch, "positions": batch["positions"].detach().clone()}
            with within(one):
                output = one(own, training=True, compute_force=True)
            (output["forces"].pow(2).sum() + output["energy"].sum()).backward()
            found.append({name: p.grad.clone() for name, p in one.named_parameters() if p.grad is not None})
        return found

    with mace.default_dtype("float64"):
        _, batch = next(mace.batches(torch.load(sets["omol"]["model"], weights_only=False), frames, "omol", "cpu"))
        with pytest.raises(RuntimeError, match="in-place"):
            steps()
        copied = steps(architecture.addition)
        with torch.jit.optimized_execution(False):
            plain = steps()
    for one, two in zip(copied, plain, strict=True):
        assert set(one) == set(two) and "joint_embedding.project.0.weight" in one
        for name in one:
            torch.testing.assert_close(one[name], two[name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", list(BUILT))
def test_fast_blocks_are_the_same_model(kind: str, sets: dict[str, Any]) -> None:
    """Energies, forces and gradients of element-agnostic products and non-linear blocks."""
    model = torch.load(sets[kind]["model"], weights_only=False)
    frames = read_frames(sets[kind]["folder"] / "valid.extxyz")
    with mace.default_dtype("float64"):
        _, batch = next(mace.batches(model, frames, sets[kind]["head"] or "omol", "cpu"))
        dense = outputs(model, batch)
        with fast_blocks.fast(model) as number:
            quick = outputs(model, batch)
    assert number > 0
    for one, two in zip(dense, quick, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-9)
