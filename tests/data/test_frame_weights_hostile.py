"""Weights of single frames: declared ones reach the loss and the proof, all others are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_waters import water
from trainings import make_plan, run

from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError
from retemper.data.frames import read_frames, write_frames
from retemper.data.labels import map_labels
from retemper.finetune.plan import HeadData, head_data
from retemper.records.training import Effective, WeightRange

hostile = pytest.mark.hostile("data")


REFUSED, TAKEN, REJECTED, HARMLESS = "refused", "taken", "rejected", "harmless"


WEIGHTS = [  # info of one frame in ten, dataset.weights, what comes of it
    ({"config_forces_weight": 100.0}, "refuse", REFUSED),
    ({"config_energy_weight": 0.0}, "refuse", REFUSED),
    ({"config_stress_weight": 2}, "refuse", REFUSED),
    ({"config_weight": 10.0}, "refuse", REFUSED),
    ({"config_virials_weight": 3.0}, "refuse", REFUSED),
    ({"config_dipole_weight": 3.0}, "refuse", REFUSED),
    ({"config_forces_weight": "heavy"}, "refuse", REFUSED),
    ({"config_forces_weight": np.array([2.0, 2.0])}, "refuse", REFUSED),
    ({"config_forces_weight": 1.0, "config_weight": 1}, "refuse", HARMLESS),
    ({"config_forces_weight": 100.0, "config_energy_weight": 0.0}, "use", TAKEN),
    ({"config_forces_weight": -1.0}, "use", REJECTED),
    ({"config_forces_weight": np.nan}, "use", REJECTED),
    ({"config_forces_weight": np.inf}, "use", REJECTED),
    ({"config_forces_weight": True}, "use", REJECTED),
    ({"config_forces_weight": 0.0, "config_energy_weight": 0.0}, "use", REJECTED),
    ({"config_weight": 10.0}, "use", REJECTED),
    ({"config_virials_weight": 10.0}, "use", REJECTED),
    ({"config_forces_weight": 100.0, "config_weight": 7.0}, "ignore", HARMLESS),
]


@hostile
@pytest.mark.parametrize(("info", "setting", "outcome"), WEIGHTS, ids=str)
def test_weights_of_frames(info: dict[str, Any], setting: str, outcome: str) -> None:
    dataset = Dataset.model_validate({"files": ["a"], "level_of_theory": "x", "weights": setting})
    frames = [water(k, **(info if k == 3 else {})) for k in range(10)]
    if outcome == REFUSED:
        with pytest.raises(RetemperError, match=rf"(?s){next(iter(info))} in 1 frame.*dataset.weights: use.*ignore"):
            map_labels(frames, dataset, "a")
        return
    mapped = map_labels(frames, dataset, "a")
    assert len(mapped.rejected) == (outcome == REJECTED)
    kept = {key: value for frame in mapped.frames for key, value in frame.info.items() if "weight" in key}
    assert kept == (info if outcome == TAKEN else {})
    if setting == "ignore":
        assert "1 frames have weights of their own; they are ignored (dataset.weights)" in mapped.warnings[0]


@hostile
@pytest.mark.parametrize("key", ["elec_temp", "dipole", "polarizability", "REF_virials"])
def test_nothing_else_that_mace_obeys_gets_through(key: str) -> None:
    mapped = map_labels([water(k, **{key: 1000.0}) for k in range(10)], Dataset(files=["a"], level_of_theory="x"), "a")
    assert not any(key in frame.info for frame in mapped.frames)
    assert f"10 frames have {key}, which is no label here" in mapped.warnings[0]


def test_the_keys_that_mace_reads_are_the_known_ones() -> None:
    """A MACE that reads further keys of a frame must be looked at before frames go to it."""
    from mace.data.utils import KeySpecification

    from retemper.data.labels import MACE_READS

    keys = KeySpecification.from_defaults()
    ours = {"REF_energy", "REF_forces", "REF_stress", "total_charge", "total_spin", "head"}  # head: MACE sets it itself
    assert {*keys.info_keys.values(), *keys.arrays_keys.values()} == ours | MACE_READS


def weighted(files: dict[str, Any], folder: Path, weights: dict[str, float], disk: bool = False) -> Any:
    """A plan for the small target set of which every second frame has these weights in its file."""
    paths = []
    for name in ("train", "valid"):
        frames = read_frames(files["folder"] / f"{name}.extxyz")
        for frame in frames[::2]:
            frame.info |= weights
        write_frames(folder / f"{name}.extxyz", frames)
        paths.append(folder / f"{name}.extxyz")
    target = head_data(*paths, "target", files["target_e0s"], weighted=True)
    plan = dataclasses.replace(make_plan(files, "naive", epochs=1), target=target)
    return dataclasses.replace(plan, disk_above=0) if disk else plan


@hostile
@pytest.mark.parametrize("disk", [False, True])
def test_declared_weights_reach_the_loss_and_the_proof_says_so(
    disk: bool, files: dict[str, Any], tmp_path: Path
) -> None:
    without = run(make_plan(files, "naive", epochs=1), tmp_path / "plain")[1][-1]["valid_loss"]
    plan = weighted(files, tmp_path, {"config_forces_weight": 10.0, "config_energy_weight": 0.0}, disk)
    _, rows = run(plan, tmp_path / "weighted")
    assert rows[-1]["valid_loss"] > 1.5 * without
    ran = Effective.read(tmp_path / "weighted/effective.json").ran
    assert ran.frame_weights is not None
    assert ran.frame_weights["Default"]["train"] == {
        "config_energy_weight": WeightRange(frames=7, min=0.0, max=1.0),
        "config_forces_weight": WeightRange(frames=7, min=1.0, max=10.0),
    }
    assert ran.frame_weights["Default"]["valid"]["config_forces_weight"].frames == 4


@hostile
@pytest.mark.parametrize("key", ["config_forces_weight", "config_energy_weight", "config_weight"])
def test_undeclared_weights_in_a_training_file_fail_the_proof(key: str, files: dict[str, Any], tmp_path: Path) -> None:
    plan = weighted(files, tmp_path, {key: 3.0})
    target: HeadData = dataclasses.replace(plan.target, weighted=False)
    with pytest.raises(RetemperError, match=r"(?s)MACE does not train without weights.*7 of 14 frames, first: 0.*3"):
        run(dataclasses.replace(plan, target=target), tmp_path / "run")
    assert not (tmp_path / "run/model.model").exists()


@hostile
def test_a_frame_weight_that_the_loss_does_not_read_fails_the_proof_even_where_weights_are_declared(
    files: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RetemperError, match=r"(?s)MACE does not train with the weights.*frame 1\n.*frame 5"):
        run(weighted(files, tmp_path, {"config_weight": 5.0}), tmp_path / "run")


def test_weights_change_the_identity_of_a_set(files: dict[str, Any], tmp_path: Path) -> None:
    plain = make_plan(files, "naive", epochs=1)
    assert weighted(files, tmp_path, {"config_forces_weight": 2.0}).key != plain.key
    assert weighted(files, tmp_path, {}).key == plain.key
