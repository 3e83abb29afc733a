"""Every strategy on foundations of other architectures: readouts with biases, several heads, charge and spin."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import MH1_HEADS, build_mh1, build_omol
from conftest import ROOT, build_tiny
from trainings import make_files, make_plan, molecules, run, weights, weights_of

from retemper.config import strategies
from retemper.core.errors import RetemperError
from retemper.data.frames import read_frames
from retemper.finetune.mace import adapters, train
from retemper.finetune.mace.setup import Setup
from retemper.models import architecture, fast_blocks, mace, model_file, predict
from retemper.records.training import Effective

BUILT = {"mh1": (build_mh1, MH1_HEADS[1]), "omol": (build_omol, None)}
QUICK = {("mh1", "lora"), ("mh1", "scratch"), ("omol", "naive"), ("omol", "freeze-5"), ("omol", "replay-lora")}
EVERY = [
    pytest.param(kind, name, marks=() if (kind, name) in QUICK else pytest.mark.slow)
    for kind in BUILT
    for name in strategies.names(ROOT)
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Foundation, target and replay sets of each architecture."""
    made = {}
    for kind, (build, head) in BUILT.items():
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = make_files(folder, build(folder / "foundation.model"), head, molecules())
    return made


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_strategy_runs_as_asked(kind: str, name: str, sets: dict[str, Any], tmp_path: Path) -> None:
    """It trains, the proof agrees, what is to be frozen stays, and the result is loaded by MACE's own calculator."""
    from mace.calculators import MACECalculator

    files = sets[kind]
    summary, rows = run(make_plan(files, name, epochs=1), tmp_path)
    proof = Effective.read(tmp_path / "effective.json")
    assert proof.differences == [] and len(rows) == 1 and summary.moved > 0
    if name != "scratch":
        assert proof.ran.start_gap < 1e-9
    after = weights(tmp_path)
    assert not any("lora" in key for key in after)
    if kind == "omol":
        embedding = {
            key: value for key, value in after.items() if key.startswith(architecture.EMBEDDED) and "weight" in key
        }
        assert len(embedding) == 4
        moved = [not torch.equal(value, weights_of(files["model"])[key]) for key, value in embedding.items()]
        if "freeze" in name:
            assert not any(moved)
        elif name in ("naive", "scratch"):
            assert all(moved[1:])  # of the spin's and the charge's classes only those that occur
    if "lora" in name:
        assert proof.ran.merge_gap < 1e-9
    frames = read_frames(files["folder"] / "valid.extxyz")[:2]
    own = predict.predict(tmp_path / "model.safetensors", frames, backend="torch")
    with mace.default_dtype("float64"):
        calculator = MACECalculator(
            models=model_file.read(tmp_path / "model.safetensors"),
            device="cpu",
            default_dtype="float64",
            head="Default",
        )
    for atoms, energy, forces in zip(frames, own.energy, own.forces, strict=True):
        assert calculator.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-8)
        np.testing.assert_allclose(calculator.get_forces(atoms), forces, atol=1e-8)


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


@pytest.mark.parametrize("kind", list(BUILT))
def test_scratch_and_naive_have_the_same_parameters(kind: str, sets: dict[str, Any], tmp_path: Path) -> None:
    """By name and shape, seen in what MACE sets up for both; only their values differ."""
    models = {}
    for name in ("scratch", "naive"):
        models[name] = set_up(make_plan(sets[kind], name), tmp_path / name)
    assert architecture.differences(models["scratch"], models["naive"]) == []
    first, second = (dict(models[name].named_parameters()) for name in ("scratch", "naive"))
    assert not torch.equal(first["node_embedding.linear.weight"], second["node_embedding.linear.weight"])


def set_up(plan: Any, folder: Path) -> Any:
    """The model of a plan as it is when training would begin."""
    found = []

    def instead(plan: Any, setup: Setup, *rest: Any) -> Any:
        found.append(setup.model)
        raise KeyboardInterrupt

    with train.in_place_of(train, "_train", instead), contextlib.suppress(KeyboardInterrupt):
        run(plan, folder)
    return found[0]


def test_an_architecture_that_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    """Correlation 3 in the first layer and 2 in the second: MACE reads 3 for both."""
    model = torch.load(build_tiny(tmp_path / "model.model", ["Default"], correlation=[3, 2]), weights_only=False)
    with pytest.raises(RetemperError, match="cannot be copied"):
        architecture.config(model)


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
