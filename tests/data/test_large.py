"""Stages in blocks give what they give at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import prepared
import pytest
from conftest import ROOT
from trainings import make_plan, run, weights

from retemper.data.frames import read_frames, write_frames
from retemper.models import descriptors
from retemper.prepare import e0s


def test_e0s_in_blocks(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that straddle the border between training and validation frames."""
    frames = [a for a in read_frames(ROOT / "data/raw/nacl.extxyz.xz") if len(a) > 1][::6]
    write_frames(tmp_path / "runs/dataset/train.extxyz", frames[:23])
    write_frames(tmp_path / "runs/dataset/valid.extxyz", frames[23:30])
    write_frames(tmp_path / "runs/dataset/isolated.extxyz", [])
    project = prepared.project(tmp_path, tiny_model, e0s={"force": True, "max_error": 1000.0})
    found = []
    for size in (20_000, 4):
        monkeypatch.setattr(e0s, "BLOCK", size)
        found.append(e0s.run(project))
    whole, blocks = found
    assert whole.frames == blocks.frames == {"train": 23, "valid": 7}
    for key in ("rank", "ratios", "elements_in_data", "add_atoms"):
        assert getattr(whole, key) == getattr(blocks, key)
    assert blocks.E0s == pytest.approx(whole.E0s, rel=1e-10)
    assert dict(blocks.error_per_atom) == pytest.approx(dict(whole.error_per_atom), rel=1e-6)


def test_mean_descriptors_are_means_of_atomic_ones(tiny_model: Path) -> None:
    frames = [a for a in read_frames(ROOT / "data/raw/molecules.extxyz.xz") if len(a) > 1][:40]
    frames = [a for a in frames if set(a.symbols) <= {"H", "C", "N", "O"}]
    assert len(frames) > 10
    every = descriptors.atomic_descriptors(tiny_model, frames, dtype="float64")
    assert [len(one) for one in every] == [len(atoms) for atoms in frames]
    means = descriptors.mean_descriptors(tiny_model, frames, dtype="float64")
    assert np.array_equal(means, np.stack([one.mean(axis=0) for one in every]))


@pytest.mark.parametrize(
    "name", ["replay", *(pytest.param(one, marks=pytest.mark.slow) for one in ("naive", "scratch"))]
)
def test_training_from_disk_is_training_from_memory(name: str, files: dict[str, Any], tmp_path: Path) -> None:
    """To every digit, and the proof holds; with replay the target comes from disk and the rest from memory."""
    plan = make_plan(files, name)
    on_disk = dataclasses.replace(plan, disk_above=0)
    assert plan.key == on_disk.key
    _, expected = run(plan, tmp_path / "memory/run")
    _, found = run(on_disk, tmp_path / "disk/run")
    assert len(list((tmp_path / "disk").glob("*.aselmdb"))) == 2
    assert ".aselmdb" in (tmp_path / "disk/run/mace.yaml").read_text()
    untimed = {"seconds": 0, "cpu_seconds": 0}
    assert [row | untimed for row in found] == [row | untimed for row in expected]
    ours, theirs = weights(tmp_path / "disk/run"), weights(tmp_path / "memory/run")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key].numpy(), theirs[key].numpy()) for key in ours)
