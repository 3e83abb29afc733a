"""Models on the line between the foundation and the trained model."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from conftest import ROOT
from trainings import make_plan, run, weights

from retemper.config import strategies
from retemper.core.errors import RetemperError
from retemper.data.frames import FORCES, read_frames
from retemper.finetune.mace import interpolation
from retemper.finetune.mace.interpolation import Place
from retemper.models import mace
from retemper.models.predict import predict
from retemper.records.course import along_the_line
from retemper.records.runs import read_history
from retemper.records.training import Effective


def walk(folder: Path) -> list[dict[str, float]]:
    with (folder / "walk.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def force_rmse(model: Path, frames: list[Atoms], head: str | None) -> float:
    said = predict(model, frames, head=head, dtype="float64", backend="torch")
    return 1e3 * float(np.sqrt(np.mean(np.concatenate([
        (f - a.arrays[FORCES]).ravel() for f, a in zip(said.forces, frames, strict=True)]) ** 2)))  # fmt: skip


@pytest.mark.parametrize("name", ["naive", "freeze-5", "lora"])
def test_weights_lie_on_the_line(name: str, files: dict[str, Any], tmp_path: Path) -> None:
    """At 0 the foundation's forces, at 1 the model of the strategy that does not interpolate, at 0.3 their weights."""
    run(make_plan(files, name, epochs=1), tmp_path / "trained")
    for alpha in (0.0, 0.3, 1.0):
        run(make_plan(files, f"{name}-interpolated", epochs=1, interpolate__alpha=alpha), tmp_path / f"{alpha}")
    start, end = mace.load(files["model"]).state_dict(), weights(tmp_path / "trained")
    for alpha in (0.0, 0.3, 1.0):
        got = weights(tmp_path / f"{alpha}")
        assert got.keys() == end.keys()
        for key, tensor in got.items():
            if not tensor.is_floating_point() or "atomic_energies" in key:
                assert torch.equal(tensor, end[key])
                continue
            expected = start[key].double().reshape(tensor.shape) * (1 - alpha) + end[key] * alpha
            assert torch.allclose(tensor, expected, rtol=0, atol=1e-12), key
        ran = Effective.read(tmp_path / f"{alpha}/effective.json").ran
        assert ran.alpha == pytest.approx(alpha, abs=1e-9)
    frames = read_frames(files["folder"] / "valid.extxyz")
    (of_start, *_, of_end) = walk(tmp_path / "0.3")
    assert of_start["valid.force_rmse"] == pytest.approx(force_rmse(files["model"], frames, files["head"]), rel=1e-9)
    trained = tmp_path / "trained/model.safetensors"
    assert of_end["valid.force_rmse"] == pytest.approx(force_rmse(trained, frames, "Default"), rel=1e-9)
    assert of_start["valid_drift.force_rmse"] < 1e-4  # the labels there are the foundation's own
    assert [row["alpha"] for row in walk(tmp_path / "0.3") if row["chosen"]] == [0.3]


def test_heads_that_replay_keeps_are_on_the_line_too(files: dict[str, Any], tmp_path: Path) -> None:
    plan = make_plan(files, "replay", epochs=1)
    line = make_plan(files, "naive-interpolated", epochs=1, interpolate__alpha=0.0).line
    strategy = plan.strategy.model_copy(update={"interpolate": strategies.Interpolate(alpha=0.0)})
    run(dataclasses.replace(plan, strategy=strategy, line=line), tmp_path / "both")
    frames = read_frames(files["folder"] / "replay-valid.extxyz")
    assert mace.heads(tmp_path / "both/model.safetensors") == ["pt_head", "Default"]
    assert force_rmse(tmp_path / "both/model.safetensors", frames, "pt_head") < 1e-4


def test_the_scope_decides(files: dict[str, Any]) -> None:
    """Target error 2 - alpha and retention 1 + alpha: by hand the best of log(target) + weight log(retention)."""
    line = make_plan(files, "naive-interpolated").line
    assert line is not None
    places = [Place(a, 0.0, 200.0 - 100 * a, 100 + 100 * a) for a in interpolation.STEPS]
    best = {
        weight: interpolation.chosen(places, dataclasses.replace(line, weight=weight, kind="retention"))
        for weight in (0.0, 1.0, 4.0)
    }
    assert best == {0.0: 1.0, 1.0: 1.0, 4.0: 0.0}  # weight 1: (2 - a)(1 + a) is 2 at both ends, and ties go to training
    drifting = [Place(a, 0.0, 200.0 - 100 * a, 100 * a) for a in interpolation.STEPS]
    of = {a: np.log(200 - 100 * a) + 2 * np.log(np.hypot(100 * a, 200)) for a in interpolation.STEPS}
    by_drift = interpolation.chosen(drifting, dataclasses.replace(line, weight=2.0))
    assert by_drift == min(of, key=lambda a: of[a])


def test_another_place_trains_nothing(files: dict[str, Any], tmp_path: Path) -> None:
    """The training is that of the strategy that does not interpolate, found by its key."""
    naive, place = make_plan(files, "naive"), make_plan(files, "naive-interpolated", interpolate__alpha=0.5)
    assert place.trained.key == naive.key != place.key
    _, rows = run(naive, tmp_path / naive.key)
    assert len(rows) == 2
    for alpha in (0.5, 0.25):
        plan = make_plan(files, "naive-interpolated", interpolate__alpha=alpha)
        _, rows = run(plan, tmp_path / plan.key)
        assert rows == [] and Effective.read(tmp_path / plan.key / "effective.json").ran.alpha == pytest.approx(alpha)
    assert [path.name for path in tmp_path.glob("*/training.log")] == ["training.log"]


def test_a_barrier_is_said() -> None:
    rows = [
        {"alpha": a, "valid.force_rmse": f, "valid_retention.force_rmse": 50.0, "chosen": float(a == 1.0)}
        for a, f in ((0.0, 100.0), (0.5, 150.0), (1.0, 60.0))
    ]
    place, barrier = along_the_line(rows)
    assert "alpha 1 " in place and "target 60.0 meV/A (trained 60.0, foundation 100.0)" in place
    assert "rises to 150.0" in barrier and along_the_line([]) == []


def test_a_killed_walk_is_walked_again(files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last epoch, before the model is written: the training is found, and comes to the same weights."""
    plan = make_plan(files, "naive-interpolated", epochs=2)
    whole, _ = run(plan, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(interpolation, "chosen", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(plan, tmp_path / "broken")
    again, rows = run(plan, tmp_path / "broken")
    assert rows == [] and again.sha256 == whole.sha256
    assert read_history(tmp_path / "broken/walk.csv") == read_history(tmp_path / "whole/walk.csv")


def test_from_nothing_there_is_no_line(tmp_path: Path) -> None:
    (tmp_path / "strategies").mkdir()
    for name in ("base", "scratch"):
        text = (ROOT / f"strategies/{name}.yaml").read_text()
        (tmp_path / f"strategies/{name}.yaml").write_text(text)
    with (tmp_path / "strategies/scratch.yaml").open("a") as file:
        file.write("interpolate: {alpha: 0.5}\n")
    with pytest.raises(RetemperError, match="start: foundation"):
        strategies.load("scratch", tmp_path)
