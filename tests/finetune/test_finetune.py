"""The trainer: every strategy runs as asked, traps are closed, results are MACE's own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from trainings import make_plan, run, weights, weights_of

from retemper.config import strategies
from retemper.core.errors import RetemperError
from retemper.data.frames import read_frames, write_frames
from retemper.finetune.plan import head_data
from retemper.records.training import Effective

ALL = strategies.names(ROOT)


@pytest.mark.parametrize("name", ALL)
def test_strategy_runs_as_asked(name: str, files: dict[str, Any], tmp_path: Path) -> None:
    """Every strategy trains, keeps all elements, moves what it should, and the proof agrees."""
    from retemper.models import mace

    summary, rows = run(make_plan(files, name), tmp_path)
    proof = Effective.read(tmp_path / "effective.json")
    assert proof.differences == [] and proof.asked.lr == proof.ran.lr
    assert len(rows) == 2 and rows[1]["valid_loss"] < rows[0]["valid_loss"]
    assert mace.elements(tmp_path / "model.safetensors") == mace.elements(files["model"])
    before, after = weights_of(files["model"]), weights(tmp_path)
    up = "interactions.0.linear_up.weight"
    frozen = {"freeze-5": up, "replay-freeze": up, "freeze-6": "products.0.linear.weight"}.get(name)
    if frozen:
        assert np.array_equal(before[frozen].numpy(), after[frozen].numpy())
    if name == "lora":
        linear = "interactions.0.linear_up.weight"  # merged adapters: changed, and no adapter left
        assert not np.array_equal(before[linear].numpy(), after[linear].numpy())
        assert not any("lora" in key for key in after)
        assert summary.trainable < summary.parameters / 2
    if name != "scratch":
        assert proof.ran.start_gap < 1e-9
    assert summary.converged is False and summary.cpu_seconds > 0  # the second of two epochs is the best
    if "replay" in name:  # 14 target frames alone make 3 steps of 4, with 12 replay frames 6
        assert "has 6 steps" in (text := (tmp_path / "mace.yaml").read_text()) and "had 3 of 4 target" in text


@pytest.mark.parametrize("labels", ["original", pytest.param("foundation", marks=pytest.mark.slow)])
@pytest.mark.parametrize("trains", [{"freeze": 6}, {"freeze": 5}, {"lora": {"rank": 2, "alpha": 1.0}}], ids=str)
def test_replay_goes_with_freezing_and_adapters(
    labels: str, trains: dict[str, Any], files: dict[str, Any], tmp_path: Path
) -> None:
    """By settings alone, with either labels, at a weight of its own: what ran is what was asked."""
    plan = make_plan(files, "replay", epochs=1, replay__labels=labels, replay__weight=0.3, **trains)
    summary, _ = run(plan, tmp_path)
    proof = Effective.read(tmp_path / "effective.json")
    assert proof.differences == [] and summary.trainable < summary.parameters
    assert proof.ran.replay_weight == 0.3 and proof.ran.heads == ["pt_head", "Default"]


def test_lr_and_ema_of_replay_are_not_overwritten(files: dict[str, Any], tmp_path: Path) -> None:
    """MACE sets lr 1e-4 and EMA 0.99999 in multihead mode unless told otherwise."""
    run(make_plan(files, "replay", epochs=1, training__lr=2.5e-3, training__ema_decay=0.97), tmp_path)
    ran = Effective.read(tmp_path / "effective.json").ran
    assert ran.lr == 2.5e-3 and ran.ema_decay == 0.97


def test_a_silently_changed_setting_fails_the_run(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without force_mh_ft_lr MACE changes the learning rate: the proof must refuse that run."""
    from retemper.finetune.mace import train

    original = train.mace_flags
    monkeypatch.setattr(train, "mace_flags", lambda *a: {**original(*a), "force_mh_ft_lr": False})
    with pytest.raises(RetemperError, match=r"lr: asked 0.0025, ran 0.0001"):
        run(make_plan(files, "replay", training__lr=2.5e-3), tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_changed_labels_fail_the_run(files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that MACE doubles (few targets beside much replay) are noticed."""
    from retemper.finetune.mace import train

    original = train.mace_flags
    monkeypatch.setattr(train, "mace_flags", lambda *a: {**original(*a), "real_pt_data_ratio_threshold": 3.0})
    with pytest.raises(RetemperError, match=r"MACE trains on \d+ frames"):
        run(make_plan(files, "replay"), tmp_path)


@pytest.mark.parametrize(
    "name", ["naive", *(pytest.param(one, marks=pytest.mark.slow) for one in ("lora", "freeze-5"))]
)
def test_losses_agree_with_mace_run_train(name: str, files: dict[str, Any], tmp_path: Path) -> None:
    """The same settings through MACE's own command give the same validation loss, epoch by epoch.

    The target's E0s are the foundation's here: MACE would replace any others (see the next test).
    """
    folder = files["folder"]
    target = head_data(folder / "replay-train.extxyz", folder / "replay-valid.extxyz", "target", files["replay_e0s"])
    plan = dataclasses.replace(make_plan(files, name, epochs=3), target=target, valid_batch_size=6)
    _, rows = run(plan, tmp_path / "ours")
    config = (tmp_path / "ours/mace.yaml").read_text().replace(str(tmp_path / "ours/mace"), str(tmp_path / "mace"))
    (tmp_path / "mace.yaml").write_text(config)
    subprocess.run(
        [sys.executable, "-m", "mace.cli.run_train", "--config", str(tmp_path / "mace.yaml")],
        check=True, capture_output=True, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    results = next((tmp_path / "mace/results").glob("*_train.txt")).read_text().splitlines()
    theirs = [e for e in map(json.loads, results) if e["mode"] == "eval" and e["epoch"] is not None]
    batches, frames = 1, 6  # MACE reports the sum of batch means divided by the number of frames
    assert len(theirs) == 3
    for ours, entry in zip(rows, theirs, strict=True):
        assert ours["valid.force_rmse"] == pytest.approx(1e3 * entry["rmse_f"], rel=1e-6)
        assert ours["valid.loss"] == pytest.approx(entry["loss"] * frames / batches, rel=1e-6)


@pytest.mark.parametrize("name", ["freeze-6", "replay"])
def test_gradients_are_clipped_by_the_norm_of_maces_parameters(
    name: str, files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MACE clips by the norm of all parameters with gradients, of those too that its optimiser does not have."""
    from retemper.finetune.mace import train

    models: list[Any] = []

    def keep(plan: Any, built: Any, *rest: Any) -> None:
        models.append(built.model)
        raise RetemperError("seen")

    monkeypatch.setattr(train, "_train", keep)
    for folder in ("ours", "mace"):
        with pytest.raises(RetemperError, match="seen"):
            run(make_plan(files, name), tmp_path / folder)
        monkeypatch.setattr(train, "_built_by", contextlib.nullcontext)
    ours, theirs = ({n: (p.shape, p.requires_grad) for n, p in model.named_parameters()} for model in models)
    assert ours == theirs


def test_mace_would_lose_the_reference_energies(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left alone, MACE overwrites the E0s it is given by the foundation's; the proof sees it, the worker mends it."""
    from retemper.finetune.mace import train
    from retemper.models.mace import atomic_energies

    run(make_plan(files, "naive", epochs=1), tmp_path / "mended")
    assert atomic_energies(tmp_path / "mended/model.safetensors") == pytest.approx(files["target_e0s"], rel=1e-12)
    monkeypatch.setattr(train, "_set_reference_energies", lambda model, plan: None)
    with pytest.raises(RetemperError, match=r"E0s\.Default"):
        run(make_plan(files, "naive", epochs=1), tmp_path / "alone")


def test_key_depends_on_what_decides_the_result(files: dict[str, Any]) -> None:
    plan = make_plan(files, "replay")
    assert plan.key == make_plan(files, "replay").key
    assert plan.key != make_plan(files, "replay", replay__weight=2.0).key
    assert plan.key != dataclasses.replace(plan, seed=4).key
    renamed = plan.strategy.model_copy(update={"about": "other words"})
    assert plan.key == dataclasses.replace(plan, strategy=renamed, device="cuda").key


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(RetemperError, match="did you mean 'replay-lora'"):
        strategies.load("replay-lorra", ROOT)
    with pytest.raises(RetemperError, match="no setting trainings.lr"):
        strategies.load("naive", ROOT, {"trainings.lr": 1.0})
    with pytest.raises(RetemperError, match="did you mean 'lr'"):
        strategies.load("naive", ROOT, {"training.lrr": 1.0})


def test_mace_still_has_the_places_we_use() -> None:
    """A MACE release that moves them fails here, loudly."""
    import inspect

    import mace.tools
    from mace.cli import run_train
    from mace.tools import model_script_utils
    from mace.tools.train import evaluate, train_one_epoch

    assert run_train.tools is mace.tools
    for module, name in ((run_train, "remove_pt_head"), (model_script_utils, "load_foundations_elements")):
        assert callable(getattr(module, name))
    assert list(inspect.signature(model_script_utils._build_model).parameters)[3] == "heads"
    needed = {"model", "loss_fn", "train_loader", "valid_loaders", "optimizer", "lr_scheduler", "ema", "max_grad_norm"}
    assert needed <= set(inspect.signature(mace.tools.train).parameters)
    assert {"logger", "ema", "max_grad_norm"} <= set(inspect.signature(train_one_epoch).parameters)
    assert {"data_loader", "output_args"} <= set(inspect.signature(evaluate).parameters)


def test_every_validation_frame_weighs_the_same(files: dict[str, Any], tmp_path: Path) -> None:
    """17 frames, the last with labels far off, in batches of 16, 5 and 17: one loss; the mean of means gave it 17/2."""
    import torch

    frames = [atoms for _ in range(2) for atoms in read_frames(files["folder"] / "valid.extxyz")]
    last = frames[0].copy()
    last.info["REF_energy"] = frames[0].info["REF_energy"] + 50.0
    last.arrays["REF_forces"] = frames[0].arrays["REF_forces"] + 5.0
    write_frames(tmp_path / "valid.extxyz", [*frames, last])
    plan = make_plan(files, "naive", epochs=1)
    target = head_data(Path(plan.target.train), tmp_path / "valid.extxyz", "target", files["target_e0s"])
    losses, models = {}, {}
    for size in (17, 16, 5):
        one = dataclasses.replace(plan, target=target, valid_batch_size=size)
        _, rows = run(one, tmp_path / str(size))
        losses[size] = [rows[0][name] for name in ("valid.loss", "valid.energy_rmse", "valid.force_rmse")]
        models[size] = weights(tmp_path / str(size))["node_embedding.linear.weight"]
    assert losses[16] == pytest.approx(losses[17], rel=1e-9) and losses[5] == pytest.approx(losses[17], rel=1e-9)
    assert torch.equal(models[16], models[17])
