"""Labels by the foundation: what they are, what names them, when they are used again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import prepared
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.data.frames import ENERGY, FORCES, STRESS, labels_hash, read_frames, structure_hash, write_frames
from retemper.prepare import pseudolabel
from retemper.records.pseudolabel import PseudolabelManifest


@pytest.fixture
def frames(tmp_path: Path) -> list[Atoms]:
    """Big, small, periodic, as read back from a file; one has labels of its own."""
    made = [molecule("CH3CH2OH"), molecule("H2O"), bulk("NaCl", "rocksalt", a=5.6, cubic=True)]
    for seed, atoms in enumerate(made):
        atoms.rattle(0.05, seed=seed)
        atoms.info |= {ENERGY: 3.0 * seed, "config_type": f"kind {seed}", "group": str(seed)}
        atoms.arrays[FORCES] = np.full((len(atoms), 3), 0.25)
    made[1].info[STRESS] = np.eye(3)  # a stress without periodicity: must not survive
    write_frames(tmp_path / "frames.extxyz", made)
    return read_frames(tmp_path / "frames.extxyz")


def test_labels_are_those_of_maces_calculator(tiny_multihead: Path, frames: list[Atoms], tmp_path: Path) -> None:
    from mace.calculators import MACECalculator

    done = pseudolabel.label(tiny_multihead, frames, name="tiny", head="pt_head", cache=tmp_path / "cache")
    calculator = MACECalculator(model_paths=str(tiny_multihead), device="cpu", default_dtype="float64", head="pt_head")
    for before, after in zip(frames, done.frames, strict=True):
        assert structure_hash(after) == structure_hash(before)
        assert (after.info["config_type"], after.info["group"]) == (before.info["config_type"], before.info["group"])
        assert after.info["label_source"] == f"foundation:tiny:{sha256(tiny_multihead)[:12]}"
        atoms = before.copy()
        atoms.calc = calculator
        assert after.info[ENERGY] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(after.arrays[FORCES], atoms.get_forces(), atol=2e-8)
        assert (STRESS in after.info) == before.pbc.all()
    stress = atoms.get_stress(voigt=False)
    np.testing.assert_allclose(done.frames[2].info[STRESS], stress, atol=1e-8)
    assert frames[0].info[ENERGY] == 0.0  # the input is left alone
    off = np.concatenate([(a.arrays[FORCES] - 0.25).ravel() for a in done.frames])
    assert done.rmse.force == pytest.approx(1e3 * np.sqrt((off**2).mean()))


def test_labels_are_made_once(
    tiny_model: Path, frames: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pseudolabel.label(tiny_model, frames, name="tiny", cache=tmp_path)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("labels were made again")

    monkeypatch.setattr(pseudolabel.predict, "predict", forbidden)
    second = pseudolabel.label(tiny_model, frames, name="tiny", cache=tmp_path)
    assert (first.reused, second.reused) == (False, True)
    assert first.address == second.address
    assert labels_hash(first.frames) == labels_hash(second.frames)
    for a, b in zip(first.frames, second.frames, strict=True):
        np.testing.assert_array_equal(a.arrays[FORCES], b.arrays[FORCES])


def test_labels_of_structures_that_no_file_holds_are_made_once(tiny_model: Path, tmp_path: Path) -> None:
    """Their positions have more digits than the file of their labels; that is no other structure."""
    made = [bulk("NaCl", "rocksalt", a=5.6, cubic=True) for _ in range(40)]
    for seed, atoms in enumerate(made):
        atoms.rattle(0.05, seed=seed)
    first, second = (pseudolabel.label(tiny_model, made, name="tiny", cache=tmp_path) for _ in range(2))
    assert (first.reused, second.reused) == (False, True) and not list(tmp_path.glob("*.corrupt*"))


def test_the_address_names_everything_that_decides(
    tiny_model: Path, tiny_multihead: Path, frames: list[Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = [atoms.copy() for atoms in frames]
    moved[1].positions[0, 0] += 1e-5
    relabelled = [atoms.copy() for atoms in frames]
    relabelled[0].info[ENERGY] = 77.0
    base = pseudolabel.address(tiny_multihead, "Default", frames, "float64")
    assert pseudolabel.address(tiny_multihead, "Default", relabelled, "float64") == base
    others = {
        pseudolabel.address(tiny_model, "Default", frames, "float64"),
        pseudolabel.address(tiny_multihead, "pt_head", frames, "float64"),
        pseudolabel.address(tiny_multihead, "Default", moved, "float64"),
        pseudolabel.address(tiny_multihead, "Default", frames[::-1], "float64"),
        pseudolabel.address(tiny_multihead, "Default", frames, "float32"),
    }
    monkeypatch.setattr(pseudolabel, "__version__", "999")
    others.add(pseudolabel.address(tiny_multihead, "Default", frames, "float64"))
    assert len(others) == 6 and base not in others


def test_cached_labels_that_were_changed_are_made_again(
    tiny_model: Path, frames: list[Atoms], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = pseudolabel.label(tiny_model, frames, name="tiny", cache=tmp_path)
    file = tmp_path / done.address / "labels.extxyz"
    whole = file.read_text()
    for spoil in (lambda: file.write_text(whole.replace(" 0.", " 1.", 1)), file.unlink):
        spoil()
        capsys.readouterr()
        again = pseudolabel.label(tiny_model, frames, name="tiny", cache=tmp_path)
        assert not again.reused and file.read_text() == whole
        assert "put aside" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.corrupt*"))) == 2


def test_cached_labels_of_other_structures_are_made_again(
    tiny_model: Path, frames: list[Atoms], tmp_path: Path
) -> None:
    """A record that is consistent with its file but lies under a wrong address."""
    done = pseudolabel.label(tiny_model, frames, name="tiny", cache=tmp_path)
    for others in (frames[::-1], frames[:2]):
        wrong = pseudolabel.address(tiny_model, "Default", others, "float64")
        shutil.copytree(tmp_path / done.address, tmp_path / wrong)
        found = pseudolabel.label(tiny_model, others, name="tiny", cache=tmp_path)
        assert not found.reused and [len(atoms) for atoms in found.frames] == [len(atoms) for atoms in others]


def test_a_frame_that_fails_is_named_and_nothing_is_written(
    tiny_model: Path, frames: list[Atoms], tmp_path: Path
) -> None:
    import torch

    model = tmp_path / "broken.model"
    module = torch.load(tiny_model, weights_only=False)
    module.atomic_energies_fn.atomic_energies[0, 4] = 1e308  # sodium: four of them are too much for a float
    torch.save(module, model)
    with pytest.raises(RetemperError, match="frame 2 .*kind 2.* are not finite"):
        pseudolabel.label(model, frames, name="broken", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_the_stage(tiny_model: Path, frames: list[Atoms], tmp_path: Path) -> None:
    made = prepared.project(tmp_path, tiny_model)
    write_frames(made.replay / "train.extxyz", frames)
    (made.replay / "valid.extxyz").write_text("")
    manifest = pseudolabel.run(made)
    assert manifest == PseudolabelManifest.read(made.pseudolabel / "manifest.json")
    written = read_frames(made.pseudolabel / "train.extxyz")
    assert [structure_hash(a) for a in written] == [structure_hash(a) for a in frames]
    assert manifest.train.labels_sha256 == sha256(made.pseudolabel / "train.extxyz")
    assert manifest.train.labels_hash == labels_hash(written)
    assert manifest.valid.n_frames == 0
    assert manifest.train.rmse_to_original.force > 0
