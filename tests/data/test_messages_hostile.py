"""Absurd frames and missing keys: rejected soon, with a reason that is short and right."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from labelled_waters import water
from staged_sets import staged

from retemper.config.settings import Dataset
from retemper.core.errors import RetemperError
from retemper.data.duplicates import near_pairs
from retemper.data.frames import ENERGY, FORCES, read_frames
from retemper.data.labels import map_labels

hostile = pytest.mark.hostile("data")


@hostile
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"positions": 1e12}, "1e+12 A from the origin"),
        ({"positions": -1e300}, "from the origin"),
        ({"positions": 2e5}, "from the origin"),
        ({"cell": 1e9}, "A long"),
        ({"positions": np.nan}, "not finite"),
        ({"atoms": 120_000}, "above dataset.max_atoms"),
    ],
    ids=str,
)
def test_far_positions_and_huge_frames_are_rejected_at_once(
    change: dict[str, float], reason: str, slow: list[Atoms], tmp_path: Path
) -> None:
    bad = slow[0].copy()
    if "positions" in change:
        bad.positions[3, 1] = change["positions"]
    if "cell" in change:
        bad.cell[2, 2] = change["cell"]
    if "atoms" in change:
        side = np.indices((50, 50, 48)).reshape(3, -1).T * 2.5
        bad = Atoms("Cu120000", positions=side, cell=[125, 125, 120], pbc=True, info={ENERGY: -3.5 * 120_000})
        bad.arrays[FORCES] = np.zeros((120_000, 3))
    begun = time.perf_counter()
    manifest = staged(tmp_path, {"data.xyz": [*slow[:60], bad, bad]})
    assert time.perf_counter() - begun < 60
    rejected = read_frames(tmp_path / "runs/dataset/rejected.extxyz")
    assert len(rejected) == 2 and reason in rejected[0].info["reason"]
    assert manifest.sets["rejected"].frames == 2


@hostile
def test_equal_frames_of_many_atoms_are_found_in_little_memory() -> None:
    import tracemalloc

    positions = np.random.default_rng(0).uniform(0, 60, (15_000, 3))
    frames = [Atoms("Cu15000", positions=positions + k * 1e-5) for k in range(3)]
    tracemalloc.start()
    assert near_pairs(frames, 1e-3) == [(0, 1), (0, 2), (1, 2)]
    assert tracemalloc.get_traced_memory()[1] < 5e8
    tracemalloc.stop()


def equal(frames: list[Atoms]) -> list[Atoms]:
    return [frames[k % 3].copy() for k in range(40)]


@hostile
@pytest.mark.parametrize(
    ("frames", "settings", "said"),
    [
        (lambda slow: equal(slow), {}, ["Only 3 frame", "37 not used: duplicate"]),
        (lambda slow: slow[:40], {"max_force": 1e-6, "max_rejected": 1.0}, ["40 not used: dataset.max_force"]),
        (lambda slow: slow[:40], {"max_stress": 1e-9, "max_force": 1e-6, "max_rejected": 1.0}, ["dataset.max_force"]),
        (lambda slow: slow[:40], {"max_atoms": 5, "max_rejected": 1.0}, ["40 not used: dataset.max_atoms"]),
        (
            lambda slow: slow[:40],
            {"near_duplicate": 5.0, "max_rejected": 1.0},
            ["Only 1 frame", "39 not used: duplicate"],
        ),
    ],
    ids=["equal", "force", "stress", "atoms", "duplicates"],
)
def test_nothing_left_says_why(
    frames: Any, settings: dict[str, Any], said: list[str], slow: list[Atoms], tmp_path: Path
) -> None:
    with pytest.raises(RetemperError) as raised:
        staged(tmp_path, {"data.xyz": frames(slow)}, **settings)
    assert all(text in str(raised.value) for text in said), raised.value


@hostile
@pytest.mark.parametrize(
    ("keys", "info", "expected", "never"),
    [
        ({"stress": "REF_stress"}, {}, "dataset.keys.stress: null", "REF_forces"),
        ({"virial": "REF_virial"}, {}, "dataset.keys.virial: null", "REF_forces"),
        ({"stress": "REF_stress"}, {"my_stress": np.zeros(6)}, "dataset.keys.stress: my_stress", "REF_forces"),
        ({"energy": "E"}, {"step": 3}, "keys that could be it", "REF_forces"),
    ],
    ids=str,
)
def test_advice_on_a_missing_key_is_a_key_that_could_be_it(
    keys: dict[str, str], info: dict[str, Any], expected: str, never: str
) -> None:
    frames = [water(k, **info) for k in range(6)]  # forces of three atoms are nine numbers, as a stress is
    dataset = Dataset.model_validate({"files": ["a"], "level_of_theory": "x", "keys": keys})
    with pytest.raises(RetemperError) as raised:
        map_labels(frames, dataset, "a")
    assert expected in str(raised.value) and never not in str(raised.value)


def crushed(k: int) -> Atoms:
    """Two atoms that are too near, with labels."""
    atoms = Atoms("H2", positions=[(0, 0, 0), (0.01 + k * 1e-4, 0, 0)], info={ENERGY: -1.0 * k})
    atoms.arrays[FORCES] = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    return atoms


@hostile
@pytest.mark.parametrize(
    "frames",
    [
        lambda: [water(k, functional=f"f{k}" + 400 * "x") for k in range(60)],
        lambda: [water(k, **{f"key{i}{k}": "x" for i in range(40)}) for k in range(60)],
        lambda: [crushed(k) for k in range(60)],
    ],
    ids=["a level a frame", "keys without end", "a reason a frame"],
)
def test_messages_stay_short(frames: Any, tmp_path: Path) -> None:
    made = frames()
    with pytest.raises(RetemperError) as raised:
        staged(tmp_path, {"data.xyz": made}, group="nowhere")
    assert len(str(raised.value)) < 4000
