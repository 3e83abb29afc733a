"""What every architecture and every strategy keep, whatever MACE does within: the contract of the seam to it.

Only public functions of `retemper.finetune.mace.train`, `retemper.models` and the records are used, so that these tests
hold for another release of MACE, or another family of models, as they stand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import BUILD, DTYPE, HEAD
from conftest import ROOT
from trainings import make_files, make_plan, molecules, run

from retemper.config import strategies
from retemper.core.errors import RetemperError
from retemper.data.frames import read_frames, write_frames
from retemper.finetune.mace import adapters
from retemper.models import architecture, head_weights, mace, model_file, predict
from retemper.records.training import Effective

SIZES = {"train": 4, "valid": 2, "replay-train": 4, "replay-valid": 2}  # structures of each set
NAMES = strategies.names(ROOT)
COVERING = {(list(BUILD)[k % len(BUILD)], NAMES[k % len(NAMES)]) for k in range(max(len(BUILD), len(NAMES)))}
EVERY = [
    pytest.param(kind, name, marks=() if (kind, name) in COVERING else pytest.mark.slow)
    for kind in BUILD
    for name in NAMES
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that gives foundation, target and replay sets of an architecture, made once."""
    made: dict[str, dict[str, Any]] = {}

    def of(kind: str) -> dict[str, Any]:
        if kind not in made:
            folder = tmp_path_factory.mktemp("contract")
            made[kind] = make_files(folder, BUILD[kind](folder / "foundation.model"), HEAD.get(kind), molecules())
            for name, number in SIZES.items():
                write_frames(folder / f"{name}.extxyz", read_frames(folder / f"{name}.extxyz")[:number])
        return made[kind]

    return of


def test_the_small_subset_covers() -> None:
    assert {kind for kind, _ in COVERING} == set(BUILD) and {name for _, name in COVERING} == set(NAMES)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_strategy_on_an_architecture(kind: str, name: str, sets: Any, tmp_path: Path) -> None:
    """It trains; the proof of what ran agrees; only what may move moved; the written file predicts what MACE does."""
    files, dtype = sets(kind), DTYPE.get(kind, "float64")
    single = dtype == "float32"
    half = {"interpolate__alpha": 0.5} if strategies.load(name, ROOT).interpolate else {}
    plan = make_plan(files, name, epochs=1, dtype=dtype, **half)
    outcome, rows = run(plan, tmp_path)
    proof = Effective.read(tmp_path / "effective.json")
    assert proof.differences == [] and len(rows) == 1 and outcome.moved > 0
    trained = model_file.read(tmp_path / "model.safetensors")
    before = head_weights.with_heads(model_file.load(files["model"]), dict.fromkeys(proof.ran.heads, source(files)))
    assert architecture.differences(before, trained) == []  # scratch: the very architecture
    moved = {
        parameter
        for parameter, value in trained.named_parameters()
        if not torch.equal(value, dict(before.named_parameters())[parameter].to(value.dtype))
    }
    if plan.strategy.freeze is not None:
        free = ("products.", "readouts.") if plan.strategy.freeze == 5 else ("readouts.",)
        assert moved and all(parameter.startswith(free) for parameter in moved)
    if plan.strategy.start == "foundation":
        assert proof.ran.start_gap < (1e-4 if single else 1e-9)
    else:
        assert {p for p, _ in trained.named_parameters() if "bessel" not in p} >= moved
        assert any(parameter.startswith("node_embedding.") for parameter in moved)
    if plan.strategy.lora is not None:
        assert proof.ran.merge_gap < (1e-4 if single else 1e-9)
    check_written(tmp_path / "model.safetensors", read_frames(files["folder"] / "valid.extxyz"), dtype)


def source(files: dict[str, Any]) -> str:
    return mace.pick_head(files["model"], files["head"])


def check_written(path: Path, frames: list[Any], dtype: str) -> None:
    """Every head of a written model gives what MACE's own calculator gives with it."""
    from mace.calculators import MACECalculator

    for head in mace.heads(path):
        own = predict.predict(path, frames, head=head, dtype=dtype, backend="torch")
        with mace.default_dtype(dtype):
            calculator = MACECalculator(models=model_file.read(path), device="cpu", default_dtype=dtype, head=head)
            for atoms, energy, forces in zip(frames, own.energy, own.forces, strict=True):
                bound = 1e-8 if dtype == "float64" else 1e-3
                assert calculator.get_potential_energy(atoms) == pytest.approx(energy, abs=bound)
                np.testing.assert_allclose(calculator.get_forces(atoms), forces, atol=bound)


@pytest.mark.parametrize("kind", [pytest.param("mp-0-small", marks=pytest.mark.slow), "mh-1", "omol"])
def test_heads_of_a_model_made_anew_are_its_heads(kind: str, tmp_path: Path) -> None:
    """Under other names, twice, in another order, and back: the same energies and forces."""
    path, frames = BUILD[kind](tmp_path / "model.model"), molecules()[:2]
    names = mace.heads(path)
    chosen = {"a": names[-1], "b": names[0], "c": names[-1]}
    several = head_weights.with_heads(model_file.load(path), chosen)
    model_file.write_pickle(several, tmp_path / "several.model")
    for number, (new, old) in enumerate(chosen.items()):
        one = tmp_path / f"one-{number}.model"
        model_file.write_pickle(head_weights.with_heads(several, {old: new}), one)
        want = predict.predict(path, frames, head=old, backend="torch")
        for got in (
            predict.predict(tmp_path / "several.model", frames, head=new, backend="torch"),
            predict.predict(one, frames, backend="torch"),
        ):
            np.testing.assert_allclose(got.energy, want.energy, atol=1e-9)
            np.testing.assert_allclose(np.concatenate(got.forces), np.concatenate(want.forces), atol=1e-9)


def test_a_merge_that_fails_costs_no_epoch(sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging is rehearsed on a copy: one that changes the model is an error before the first epoch."""
    merge = adapters.merge

    def half(model: torch.nn.Module) -> None:
        for module in model.modules():
            if hasattr(module, "scaling"):
                module.scaling *= 0.5
        merge(model)

    monkeypatch.setattr(adapters, "merge", half)
    with pytest.raises(RetemperError) as raised:
        run(make_plan(sets("mp-0-small"), "lora", epochs=1), tmp_path)
    assert raised.value.got is not None and not (tmp_path / "history.csv").exists()
