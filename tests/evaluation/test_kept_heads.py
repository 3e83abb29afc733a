"""What heads that were kept alive lost: against the same head of the foundation, on the retention set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import prepared
import pytest
import run_files
from architectures import MH1_HEADS, build_mh1
from trainings import molecules

from retemper.config.metric_names import DRIFT_OF
from retemper.config.project import Project
from retemper.data.frames import write_frames
from retemper.evaluation import stage
from retemper.models import head_weights, mace, model_file, model_writing, predict
from retemper.prepare import pseudolabel
from retemper.records.evaluation import Evaluation
from retemper.registry import measurements, model_card

FIRST, KEPT = MH1_HEADS[1], [MH1_HEADS[2], MH1_HEADS[0]]
HEADS = {"pt_head": FIRST, "Default": FIRST, **dict(zip(KEPT, KEPT, strict=True))}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A model of four heads, of which the last differs from the foundation's by its readout."""
    import torch

    root = tmp_path_factory.mktemp("kept")
    foundation = build_mh1(root / "foundation.model")
    project = prepared.project(
        root,
        foundation,
        head=FIRST,
        strategies=["pseudolabel-replay"],
        replay={"heads": KEPT},
        evaluate={"backend": "torch"},
    )
    prepared.e0s(mace.atomic_energies(foundation, FIRST)).write(project.e0s)
    frames = [atoms for atoms in molecules() if len(atoms) > 2]
    for name, part in (("dataset/test", frames[:4]), ("dataset/train", frames[4:6]), ("replay/train", frames[6:8])):
        write_frames(root / f"runs/{name}.extxyz", part)
    write_frames(root / "runs/replay/retention.extxyz", pseudolabel.of_project(project, frames[8:20]).frames)
    model = head_weights.with_heads(model_file.load(foundation), HEADS)
    with torch.no_grad():
        model.scale_shift.scale[3] *= 1.5
    model_writing.write(model, project.model("pseudolabel-replay", 1))
    run_files.write_summary(root, "pseudolabel-replay", {1: run_files.outcome()}, replay="foundation")
    return project


@pytest.fixture(scope="module")
def evaluated(made: Project) -> Evaluation:
    return stage.run(made, "pseudolabel-replay")


def rms_of(project: Project, head: str) -> float:
    """Force difference (meV/A) of a head to the foundation's of the same name, over the retention set."""
    frames = stage.read_sets(project).retention
    now, before = (
        np.concatenate(predict.predict(path, frames, head=head, backend="torch").forces)
        for path in (project.model("pseudolabel-replay", 1), project.weights)
    )
    return float(1e3 * np.sqrt(np.mean((now - before) ** 2)))


def test_each_is_measured_against_its_own_head(made: Project, evaluated: Evaluation) -> None:
    """One is as it was, one moved; the labels of the retention set, of another head, play no part."""
    numbers = evaluated.numbers(1)
    unmoved, moved = (numbers[f"{DRIFT_OF}{head}.force_rmse"].value for head in KEPT)
    assert unmoved == pytest.approx(0.0, abs=1e-3) and rms_of(made, KEPT[0]) == pytest.approx(0.0, abs=1e-9)
    assert moved == pytest.approx(rms_of(made, KEPT[1]), rel=1e-5) and moved > 1.0
    assert numbers["drift_replay_head.force_rmse"].value == pytest.approx(0.0, abs=1e-3)
    assert numbers[f"{DRIFT_OF}{KEPT[0]}.energy_rmse"].value == pytest.approx(0.0, abs=1e-3)
    assert Evaluation.read(made.evaluation("pseudolabel-replay") / "metrics.json") == evaluated
    assert set(evaluated.numbers()) == set(numbers)


def test_a_model_without_them_has_no_such_numbers(made: Project, tmp_path: Path) -> None:
    model = head_weights.with_heads(model_file.load(made.weights), {"pt_head": FIRST, "Default": FIRST})
    model_writing.write(model, tmp_path / "model.safetensors")
    parts = stage.measure_fine_tuned(stage.read_sets(made), tmp_path / "model.safetensors")
    assert list(parts) == ["target", "drift", "drift_replay_head"]
    assert "kept" not in stage.accuracy_of(parts).model_dump()


def test_they_are_registered_as_other_numbers_are(made: Project, evaluated: Evaluation) -> None:
    """With interval, groups and errors by frame, from which gates and comparisons are made."""
    name = f"{DRIFT_OF}{KEPT[1]}"
    number = measurements.from_accuracy(evaluated.seeds[1], 0.95)[f"{name}.force_rmse"]
    assert number.unit == "meV/Å" and number.groups == evaluated.seeds[1].sets()[name].n_groups
    errors = measurements.read_frames_csv(made.evaluation("pseudolabel-replay") / "frames.csv")[1][name]
    assert np.sqrt(errors.force_sq.sum() / (3 * errors.n_atoms.sum())) == pytest.approx(number.value, rel=1e-6)
    rows = dict(model_card._of_kept(evaluated.numbers(1)))
    assert rows[f"Drift of head {KEPT[1]} from the foundation's, force RMSE (meV/Å)"] == f"{name}.force_rmse"


def test_a_head_with_a_name_of_ours_is_told_by_the_foundations(made: Project, tmp_path: Path) -> None:
    """The foundation's pt_head is foundation_pt_head in the model, and drift_of_pt_head among the numbers."""
    tuned = head_weights.with_heads(model_file.load(made.weights), {FIRST: FIRST, "pt_head": KEPT[0]})
    model_file.write_pickle(tuned, tmp_path / "tuned.model")
    other: Any = prepared.project(tmp_path, tmp_path / "tuned.model", head=FIRST, evaluate={"backend": "torch"})
    model = head_weights.with_heads(tuned, {"pt_head": FIRST, "Default": FIRST, "foundation_pt_head": "pt_head"})
    model_writing.write(model, tmp_path / "model.safetensors")
    sets = dataclasses.replace(stage.read_sets(made), project=other)
    parts = stage.measure_fine_tuned(sets, tmp_path / "model.safetensors")
    assert parts["drift_of_pt_head"].report.force_rmse.value == pytest.approx(0.0, abs=1e-3)
    assert parts["drift_of_pt_head"].head == "foundation_pt_head"
