"""replay.heads: further heads of the foundation stay in the fine-tuned model, and go on being replayed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import prepared
import pytest
from architectures import build_mh1
from conftest import build_tiny
from pydantic import ValidationError
from trainings import keeping, make_files, make_plan, molecules, run

from retemper.config import strategies
from retemper.config.settings import Replay
from retemper.core import weight_files
from retemper.core.errors import RetemperError
from retemper.core.files import read_json, sha256
from retemper.data.frames import read_frames, write_frames
from retemper.finetune import planning
from retemper.finetune.plan import Plan
from retemper.models import heads, mace, predict
from retemper.models.head_names import name_of
from retemper.prepare import pseudolabel
from retemper.records.pseudolabel import PseudolabelManifest

NAMES = ["omat_pbe", "matpes_r2scan", "spice_wB97M"]


@pytest.fixture(scope="module", params=["tiny", "mh-1"])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Files of a training from a foundation with three heads, by a plain one and by the blocks of MH-1."""
    folder = tmp_path_factory.mktemp("several")
    model = folder / "model.model"
    build_tiny(model, NAMES) if request.param == "tiny" else build_mh1(model, NAMES)
    return make_files(folder, model, NAMES[0], molecules())


def _plan(files: dict[str, Any], kept: list[str], **overrides: Any) -> Plan:
    """Pseudolabelled replay of the first head, and of `kept` with their own labels."""
    return keeping(make_plan(files, "pseudolabel-replay", epochs=3, **overrides), files, kept)


def _drift(model: Path, head: str, foundation: Path, frames: list[Any]) -> float:
    """Root mean square difference of forces (eV/A) of a model's head to the foundation's head of the same name."""
    now = predict.predict(model, frames, head=head, backend="torch").forces
    before = predict.predict(foundation, frames, head=head, backend="torch").forces
    return float(np.sqrt(np.mean((np.concatenate(now) - np.concatenate(before)) ** 2)))


def test_heads_that_are_kept_are_replayed_and_drift_less(several: dict[str, Any], tmp_path: Path) -> None:
    """The proof names every head; with a replay weight their forces stay nearer to the foundation's than without."""
    frames, drifts = read_frames(several["folder"] / "replay-valid.extxyz"), {}
    for weight in (0.0, 30.0):
        plan = _plan(several, NAMES[1:], replay__weight=weight, training__lr=3e-3)
        _, rows = run(plan, tmp_path / str(weight))
        model = tmp_path / str(weight) / weight_files.NAME
        assert set(mace.heads(model)) == {"Default", "pt_head", *NAMES[1:]}
        drifts[weight] = [_drift(model, head, several["model"], frames) for head in NAMES[1:]]
        effective = read_json(tmp_path / str(weight) / "effective.json")
        assert effective["differences"] == [] and effective["ran"]["start_gap"] < 1e-6
        assert set(effective["ran"]["frames"]) == {"Default", "pt_head", *NAMES[1:]}
        for head in NAMES[1:]:
            energies = effective["ran"]["E0s"][head]
            assert energies == {
                str(z): pytest.approx(e) for z, e in mace.atomic_energies(several["model"], head).items()
            }
            assert f"valid_replay_{head}.force_rmse" in rows[-1]
    assert sum(drifts[30.0]) < 0.8 * sum(drifts[0.0]), drifts


def test_the_validation_loss_is_the_targets_and_the_mean_over_replayed_heads(
    several: dict[str, Any], tmp_path: Path
) -> None:
    _, rows = run(_plan(several, NAMES[1:2]), tmp_path / "a")
    for row in rows:
        replayed = [row["valid_replay.loss"], row[f"valid_replay_{NAMES[1]}.loss"]]
        assert row["valid_loss"] == pytest.approx(row["valid.loss"] + sum(replayed) / 2, rel=1e-12)


def test_the_key_knows_the_heads_and_without_them_it_is_what_it_was(several: dict[str, Any]) -> None:
    plan = make_plan(several, "pseudolabel-replay")
    content = dataclasses.asdict(plan)
    assert content["kept"] == {}
    keys = {_plan(several, kept).key for kept in ([], NAMES[1:2], NAMES[2:], NAMES[1:])}
    assert len(keys) == 4


def test_a_head_with_the_name_of_one_of_ours_gets_another() -> None:
    assert [name_of(head) for head in ("Default", "pt_head", "omol")] == [
        "foundation_Default",
        "foundation_pt_head",
        "omol",
    ]


# ------------------------------------------------------------------ from settings


def _project(folder: Path, model: Path, **replay: Any) -> Any:
    made = prepared.project(folder, model, head=NAMES[0], replay=replay, strategies=["pseudolabel-replay"])
    for name, frames in (("train", molecules()[:6]), ("valid", molecules()[6:9])):
        write_frames(made.replay / f"{name}.extxyz", frames)
    return made


def test_the_stage_labels_by_every_head(tmp_path: Path) -> None:
    model = build_tiny(tmp_path / "model.model", NAMES)
    made = _project(tmp_path, model, heads=NAMES[1:])
    manifest = pseudolabel.run(made)
    assert manifest == PseudolabelManifest.read(made.pseudolabel / "manifest.json")
    for head in NAMES[1:]:
        frames = read_frames(made.pseudolabel / head / "train.extxyz")
        expected = predict.predict(model, frames, head=head, backend="torch").energy
        np.testing.assert_allclose([atoms.info["REF_energy"] for atoms in frames], expected, atol=1e-6)
    strategy = strategies.load("pseudolabel-replay")
    kept = planning._kept(made, strategy, sha256(model))
    assert list(kept) == NAMES[1:] and all(data.n_train == 6 and data.n_valid == 3 for data in kept.values())


@pytest.mark.hostile("settings")
@pytest.mark.parametrize(
    ("named", "said"), [(["omat_r2scan"], "did you mean"), ([NAMES[0]], "replayed anyway")]
)  # fmt: skip
def test_heads_that_cannot_be_kept(tmp_path: Path, named: list[str], said: str) -> None:
    made = _project(tmp_path, build_tiny(tmp_path / "model.model", NAMES), heads=named)
    with pytest.raises(RetemperError, match=said):
        heads.kept_alive(made)


@pytest.mark.hostile("settings")
def test_original_labels_are_of_one_head(tmp_path: Path) -> None:
    made = _project(tmp_path, build_tiny(tmp_path / "model.model", NAMES), heads=NAMES[1:])
    with pytest.raises(RetemperError, match="use pseudolabel-replay"):
        planning._kept(made, strategies.load("replay"), "a")


@pytest.mark.hostile("settings")
@pytest.mark.parametrize("named", [["a", "a"], ["a/b"], ["../a"], [""]], ids=str)
def test_names_of_heads_are_checked_as_settings(named: list[str]) -> None:
    """They are names of folders and of metrics."""
    with pytest.raises(ValidationError, match="heads"):
        Replay(heads=named)


def test_the_last_rounds_weights_must_have_the_heads(tmp_path: Path) -> None:
    model = build_tiny(tmp_path / "last.model", ["Default", "pt_head", NAMES[1]])
    planning._require_heads(model, NAMES[1:2])
    for lacking in (NAMES[2], "pt_head"):  # pt_head of the foundation is foundation_pt_head in a fine-tuned model
        with pytest.raises(RetemperError, match=f"no head {lacking}"):
            planning._require_heads(model, [NAMES[1], lacking])
