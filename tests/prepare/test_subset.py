"""Sizes of the training set: every rule's sizes are nested, recorded, and the same for every strategy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import prepared
import pytest
import yaml
from ase import Atoms
from ase.build import molecule
from conftest import ROOT

from retemper.config.project import Project
from retemper.config.settings import Dataset, Settings
from retemper.core.files import digest, sha256
from retemper.data.frames import read_frames, write_frames
from retemper.prepare import dataset as stage
from retemper.prepare.subset import order

RULES = get_args(Dataset.model_fields["subset"].annotation)


def frames() -> list[Atoms]:
    """Fifteen groups of four molecules along a line; the frames of a group are not neighbours in the list."""
    found = []
    for k in range(60):
        atoms = molecule("H2O", info={"group": f"g{k % 15}"})
        atoms.positions += [0.37 * k**2 % 11, 0, 0]
        found.append(atoms)
    return found


def place(some: Any) -> np.ndarray:
    return np.array([[atoms.positions[:, 0].mean()] for atoms in some])


@pytest.mark.parametrize("rule", RULES)
def test_a_smaller_size_is_the_beginning_of_a_larger_one(rule: str) -> None:
    some = frames()
    whole = order(rule, some, 60, 3, place)
    assert sorted(whole) == list(range(60))
    for number in (5, 6, 17, 59):
        assert order(rule, some, number, 3, place) == whole[:number]


def test_what_the_rules_choose() -> None:
    some = frames()
    assert order("first", some, 5, 0, place) == [0, 1, 2, 3, 4]
    assert len({some[k].info["group"] for k in order("groups", some, 15, 0, place)}) == 15
    assert order("random", some, 60, 7, place) == np.random.default_rng(7).permutation(60).tolist()
    line = [Atoms("H", positions=[[x, 0, 0]]) for x in (0.0, 1.0, 2.0, 10.0)]
    # the mean is 3.25: 2 is nearest to it; then 10 (8 away), 0 (2 away), 1
    assert order("farthest-point", line, 4, 0, place) == [2, 3, 0, 1]
    assert len({tuple(order(rule, some, 10, 0, place)) for rule in RULES}) == len(RULES)


def project(root: Path, model: Path, **dataset: Any) -> Project:
    """A project on the droplets of the examples with the tiny model as foundation."""
    (root / "foundations").mkdir(exist_ok=True)
    shutil.copytree(ROOT / "strategies", root / "strategies", dirs_exist_ok=True)
    about = {"about": "a", "level_of_theory": "PBE", "licence": "MIT", "citation": "c"}
    entry = {**about, "elements": "H C N O Na Cl", "file": str(model), "sha256": sha256(model)}
    (root / "foundations/foundations.yaml").write_text(yaml.safe_dump({"tiny": entry}))
    some = read_frames(ROOT / "data/raw/nacl.extxyz.xz")[:120:2]
    write_frames(root / "data.extxyz", some)
    content = {
        "system": "nacl",
        "foundation": "tiny",
        "strategies": ["naive"],
        "seeds": [1],
        "dataset": {"files": ["data.extxyz"], "level_of_theory": "GFN2-xTB", "keys": {"stress": None}, **dataset},
    }
    return Project(root, Settings.model_validate(content))


@pytest.mark.parametrize("rule", RULES)
def test_sizes_of_a_data_set(rule: str, tmp_path: Path, tiny_model: Path) -> None:
    """From five frames up, in the descriptors of the real model where the rule needs them."""
    from retemper.finetune.planning import plans
    from retemper.models.mace import atomic_energies

    sources: list[list[str]] = []
    for number in (5, 12, None):
        made = project(tmp_path, tiny_model, max_train=number, subset=rule, group="group")
        manifest = stage.run(made)
        train = read_frames(tmp_path / "runs/dataset/train.extxyz")
        sources.append([frame.info["source"] for frame in train])
        assert len(train) == number or number is None
        recorded = manifest.subset
        assert recorded.rule == rule
        assert (recorded.order_hash is None) == (number is None)
        if number and rule == "first":
            assert recorded.order_hash == digest(sources[-1])
        if number == 5:
            prepared.e0s(atomic_energies(tiny_model)).write(tmp_path / "runs/e0s/e0s.json")
            names = ("naive", "scratch", "lora")
            hashes = {plans(Project(tmp_path, made.settings), name)[0].target.train_hash for name in names}
            assert hashes == {manifest.sets["train"].hash}
    assert set(sources[0]) < set(sources[1]) < set(sources[2])
    assert len(sources[2]) == recorded.of
