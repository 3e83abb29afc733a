"""Grouping, splitting, nested subsets and the audit for leaks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from retemper.core.errors import RetemperError
from retemper.data.grouping import Grouping, group_frames, memory
from retemper.data.splits import leaks, nested_order, require_no_leaks, split


def frame(formula: str = "H2O", source: str = "a:0", **info: object) -> Atoms:
    atoms = molecule(formula)
    atoms.info |= {"source": source, **info}
    return atoms


def walk(number: int, step: float, spring: float, seed: int = 0, file: str = "a", first: int = 0) -> list[Atoms]:
    """A crystal whose atoms move like overdamped oscillators: correlation falls by `spring` each frame."""
    random = np.random.default_rng(seed)
    base = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    shift = np.zeros_like(base.positions)
    frames = []
    for k in range(-50, number):
        shift = (1 - spring) * shift + step * random.normal(size=shift.shape)
        if k >= 0:
            atoms = base.copy()
            atoms.positions += shift
            atoms.info["source"] = f"{file}:{first + k}"
            frames.append(atoms)
    return frames


def test_a_key_of_the_user_groups() -> None:
    frames = [frame(mol=k % 4, source=f"a:{k}") for k in range(12)]
    grouping = group_frames(frames, "mol", 0.1, 0.1)
    assert set(grouping.groups) == {"mol 0", "mol 1", "mol 2", "mol 3"}
    with pytest.raises(RetemperError, match=r"info key 'moll'") as error:
        group_frames(frames, "moll", 0.1, 0.1)
    assert "mol" in str(error.value).split("one of")[1]
    assert group_frames(frames, "composition", 0.1, 0.1).groups == ["formula H2O"] * 12


def test_auto_prefers_sensible_keys() -> None:
    many = [frame(name=k % 12, source=f"a:{k}") for k in range(48)]
    assert group_frames(many, "auto", 0.1, 0.1).rule == "info key name"
    numbered = [frame(name=k, source=f"a:{k}") for k in range(48)]  # a name for every frame groups nothing
    assert group_frames(numbered, "auto", 0.1, 0.1).rule == "blocks in time"
    lopsided = [frame(name=max(0, k - 40), source=f"a:{k}") for k in range(48)]
    assert group_frames(lopsided, "auto", 0.1, 0.1).rule == "blocks in time"
    formulas = ["H2O", "NH3", "CH4", "CO", "H2", "N2", "O2", "CO2", "C2H2", "C2H4", "C2H6", "HCN"] * 4
    mixed = [frame(formula, source=f"a:{k}") for k, formula in enumerate(formulas)]
    assert group_frames(mixed, "auto", 0.1, 0.1).rule == "composition"


def test_memory_of_a_run() -> None:
    """For x(t+1) = (1-s) x(t) + noise the displacement reaches half its limit when 1 - (1-s)^lag = 1/4."""
    assert memory(walk(200, 0.05, 1.0)) == (0, True)
    lag, forgets = memory(walk(2000, 0.02, 0.01))
    assert forgets
    exact = np.log(0.75) / np.log(0.99)  # 28.6
    assert abs(lag - exact) < 12
    assert memory(walk(200, 0.001, 0.0)) == (10, False)


def test_neighbours_in_time_never_straddle() -> None:
    frames = walk(600, 0.03, 0.1)
    grouping = group_frames(frames, "auto", 0.1, 0.1)
    assert grouping.rule == "blocks in time"
    ((run, gap),) = grouping.runs
    assert run == list(range(600))
    assert gap >= 1
    places = split(grouping, 0.1, 0.1, seed=0)
    counts = Counter(places)
    assert 40 <= counts["test"] <= 80
    assert 40 <= counts["valid"] <= 80
    assert 0 < counts["gap"] < 60
    for i, place in enumerate(places):
        for other in places[i + 1 : i + 1 + gap]:
            assert place == other or "gap" in (place, other)


def test_shuffled_frames_need_no_gap() -> None:
    grouping = group_frames(walk(200, 0.05, 1.0), "auto", 0.1, 0.1)
    assert grouping.runs[0][1] == 0
    assert "gap" not in split(grouping, 0.1, 0.1, 0)


def test_trajectories_are_told_by_their_jumps_and_short_ones_stay_whole() -> None:
    frames: list[Atoms] = []
    random = np.random.default_rng(1)
    for number in range(8):
        shift = random.normal(0, 1.0, (8, 3))
        for atoms in walk(12, 0.002, 0.0, seed=number, first=len(frames)):
            atoms.positions += shift
            frames.append(atoms)
    grouping = group_frames(frames, "auto", 0.15, 0.15)
    assert [len(run) for run, _ in grouping.runs] == [12] * 8
    for run, _ in grouping.runs:
        assert len({grouping.groups[k] for k in run}) == 1
    places = split(grouping, 0.15, 0.15, 0)
    assert all(len({places[k] for k in run}) == 1 for run, _ in grouping.runs)


def test_files_and_species_end_a_run() -> None:
    frames = [*walk(30, 0.05, 1.0, file="a"), *walk(30, 0.05, 1.0, seed=1, file="b")]
    frames += [frame(source=f"b:{30 + k}") for k in range(4)]
    grouping = group_frames(frames, "auto", 0.1, 0.1)
    assert [len(run) for run, _ in grouping.runs] == [30, 30, 4]


def test_relatives_anywhere_in_the_file_share_a_group() -> None:
    frames = walk(99, 0.3, 1.0)
    for k in (40, 80):
        frames[k].positions = frames[3].positions + 0.01
    groups = group_frames(frames, "auto", 0.1, 0.1).groups
    assert groups[3] == groups[40] == groups[80]
    assert len(set(groups)) == 31  # 33 blocks of three, three of them one


def test_shares_are_met_and_splits_repeat() -> None:
    random = np.random.default_rng(2)
    groups = [f"g{k}" for k in range(60) for _ in range(random.integers(1, 12))]
    grouping = Grouping(groups, "test")
    first = split(grouping, 0.1, 0.2, seed=1)
    assert first == split(grouping, 0.1, 0.2, seed=1)
    assert first != split(grouping, 0.1, 0.2, seed=2)
    counts = Counter(first)
    assert abs(counts["valid"] / len(groups) - 0.1) < 0.03
    assert abs(counts["test"] / len(groups) - 0.2) < 0.03
    by_group = {(group, place) for group, place in zip(groups, first, strict=True)}
    assert len(by_group) == 60


def test_the_held_out_sets_stay_when_data_are_added() -> None:
    old = [f"g{k}" for k in range(50) for _ in range(4)]
    new = old + [f"h{k}" for k in range(3) for _ in range(4)]
    before = dict(zip(old, split(Grouping(old, "test"), 0.1, 0.1, 0), strict=True))
    after = dict(zip(new, split(Grouping(new, "test"), 0.1, 0.1, 0), strict=True))
    moved = [group for group in before if before[group] == "test" and after[group] == "train"]
    assert len(moved) <= 1


def test_few_large_groups_come_as_near_as_they_can() -> None:
    groups = ["a"] + ["b"] * 16 + ["c"] * 18 + ["d"] * 22 + ["e"] * 23
    counts = Counter(split(Grouping(groups, "test"), 0.1, 0.1, 0))
    assert counts["test"] >= 8
    assert counts["valid"] >= 8
    assert counts["train"] >= 40


def test_too_few_groups_or_frames() -> None:
    with pytest.raises(RetemperError, match=r"only 2 group\(s\) by composition"):
        split(Grouping(["a"] * 5 + ["b"] * 5, "composition"), 0.1, 0.1, 0)
    with pytest.raises(RetemperError, match=r"Only 1 frame\(s\) are left"):
        group_frames([frame()], "auto", 0.1, 0.1)


def test_nested_subsets() -> None:
    groups = [f"g{k}" for k in range(7) for _ in range(9)]
    order = nested_order(groups, seed=0)
    assert sorted(order) == list(range(63))
    assert {groups[k] for k in order[:7]} == set(groups)  # one of each group first
    inside = [k - 9 * 3 for k in order if groups[k] == "g3"]
    assert inside[:3] == [0, 8, 4]  # far apart in time first


def test_leaks_are_found_and_named() -> None:
    random = np.random.default_rng(7)
    sets = {}
    for name in ("train", "valid", "test"):
        frames = []
        for k in range(10):
            atoms = frame("CH3CH2OH", source=f"{name}:{k}", group=f"{name} {k}")
            atoms.rattle(0.1, rng=random)
            frames.append(atoms)
        sets[name] = frames
    sets["train"].append(Atoms("H", info={"source": "atom"}))
    sets["valid"].append(Atoms("H", info={"source": "atom"}))
    assert require_no_leaks(sets, 1e-3) == ["train/valid", "train/test", "valid/test"]
    near = sets["train"][4].copy()
    near.rattle(1e-4, rng=random)
    near.info |= {"source": "near", "group": "new"}
    copy = sets["train"][5].copy()
    copy.info |= {"source": "copy", "group": "new"}
    again = frame("H2O", source="again", group="train 2")
    found = leaks(sets["train"], [near, copy, again], 1e-3)
    assert [(leak["kind"], leak["a"], leak["b"]) for leak in found] == [
        ("near duplicate", "train:4", "near"),
        ("same structure", "train:5", "copy"),
        ("shared group", "train 2", "train 2"),
    ]
    assert [leak["kind"] for leak in leaks(sets["train"], [again], 1e-3, groups=False)] == []
    with pytest.raises(RetemperError, match=r"2 leak\(s\) between train and valid"):
        require_no_leaks({**sets, "valid": [*sets["valid"], near, copy]}, 1e-3)
