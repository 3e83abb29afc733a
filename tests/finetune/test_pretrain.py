"""The embedded foundations: their generations, and a pretraining in small."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from retemper.config import foundations
from retemper.core.errors import RetemperError
from retemper.core.files import project_root
from retemper.data.frames import read_frames, write_frames
from retemper.finetune.mace.pretrain import FOLDER, generations, of_kinds, pretrain

ROOT = project_root()


def kinds_of(path: Path) -> Counter[str]:
    return Counter(str(atoms.info["config_type"]) for atoms in read_frames(path))


def test_each_embedded_foundation_is_a_generation() -> None:
    """Their pools hold the kinds that they were trained on and isolated atoms, each generation more than the last."""
    embedded = {name: entry for name, entry in foundations.catalogue(ROOT).items() if entry.file}
    assert set(embedded) == set(generations(ROOT))
    before: set[str] = set()
    for name, settings in generations(ROOT).items():
        pool = kinds_of(ROOT / str(embedded[name].pool))
        assert set(pool) == {*settings["kinds"], "IsolatedAtom"} and before < set(pool)
        assert pool["IsolatedAtom"] == 22 and set(kinds_of(ROOT / str(embedded[name].retention))) <= set(pool)
        batches = -(-sum(pool.values()) // 16)
        assert batches * settings["max_num_epochs"] == pytest.approx(8300, rel=0.03)  # alike in gradient steps
        before = set(pool)


def test_unknown_names_and_kinds(tmp_path: Path) -> None:
    with pytest.raises(RetemperError, match="mini-inorganic"):
        pretrain("mini-inorgnic", ROOT)
    with pytest.raises(RetemperError, match="No structures of kind glass"):
        of_kinds(["crystal", "glass"], ROOT, tmp_path / "sets")
    assert not (tmp_path / "sets").exists()


def test_a_pretraining_in_small(tmp_path: Path) -> None:
    """Two epochs on twelve dimers: a model of all elements of its set, which a second call finds trained."""
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    light = [a for a in read_frames(ROOT / FOLDER / "train.extxyz.xz") if set(a.symbols) <= {"H", "C", "O"}]
    dimers = [a for a in light if a.info["config_type"] == "dimer"]
    atoms = [a for a in light if a.info["config_type"] == "IsolatedAtom"]
    for name, part in (("train", dimers[:12] + atoms), ("valid", dimers[12:16]), ("test", dimers[16:20])):
        write_frames(folder / f"{name}.extxyz.xz", part)
    settings = yaml.safe_load((ROOT / FOLDER / "mace.yaml").read_text())
    settings |= {"hidden_irreps": "4x0e", "MLP_irreps": "4x0e", "max_ell": 1, "correlation": 1, "batch_size": 4}
    (folder / "mace.yaml").write_text(yaml.safe_dump(settings))
    own = {"kinds": ["dimer"], "max_num_epochs": 2, "lr_scheduler_gamma": 0.9}
    (folder / "generations.yaml").write_text(yaml.safe_dump({"tiny": own}))
    model = pretrain("tiny", tmp_path)
    from retemper.models.mace import elements

    assert elements(model) == [1, 6, 8]
    log = next((tmp_path / ".cache/pretrain/tiny/logs").glob("*.log")).read_text()
    assert "Epoch 1" in log and "Epoch 2" not in log
