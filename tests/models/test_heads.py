"""Which head of a foundation is used: chosen in params.yaml, in the catalogue, or an error that lists them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import build_tiny
from prepared import project
from trainings import molecules

from retemper.config.project import Project
from retemper.core.errors import RetemperError
from retemper.data.frames import write_frames
from retemper.models import heads, predict
from retemper.prepare import pseudolabel

HEADS = ["omat_pbe", "matpes_r2scan", "spice_wB97M"]
LEVELS = {"omat_pbe": "PBE+U", "matpes_r2scan": "r2SCAN"}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose heads give other energies: E0s differ by 0.5 eV."""
    return build_tiny(tmp_path_factory.mktemp("several") / "model.model", HEADS)


def with_entry(made: Project, **changes: object) -> Project:
    path = made.root / "foundations/foundations.yaml"
    content = yaml.safe_load(path.read_text())
    content["tiny"] |= changes
    path.write_text(yaml.safe_dump(content))
    return Project(made.root, made.settings)


def test_the_settings_win_over_the_catalogue(several: Path, tmp_path: Path) -> None:
    by_entry = with_entry(project(tmp_path, several), head="omat_pbe", heads=LEVELS)
    assert heads.of_foundation(by_entry) == "omat_pbe"
    chosen = Project(tmp_path, by_entry.settings.model_copy(update={"head": "matpes_r2scan"}))
    assert heads.of_foundation(chosen) == "matpes_r2scan"
    assert chosen.foundation.level_of_theory == "r2SCAN"
    unlisted = Project(tmp_path, by_entry.settings.model_copy(update={"head": "spice_wB97M"}))
    assert unlisted.foundation.level_of_theory == by_entry.foundation.level_of_theory


@pytest.mark.hostile("settings")
def test_no_choice_lists_heads_with_their_levels(several: Path, tmp_path: Path) -> None:
    made = with_entry(project(tmp_path, several), heads=LEVELS)
    with pytest.raises(RetemperError) as raised:
        heads.of_foundation(made)
    for text in (*HEADS, *LEVELS.values()):
        assert text in str(raised.value.expected)


@pytest.mark.hostile("settings")
def test_a_wrong_head_names_the_nearest(several: Path, tmp_path: Path) -> None:
    made = project(tmp_path, several, head="omat_bpe")
    with pytest.raises(RetemperError) as raised:
        heads.of_foundation(made)
    assert "'omat_pbe'" in str(raised.value.fix)


def test_one_head_needs_no_choice(tiny_model: Path, tiny_multihead: Path, tmp_path: Path) -> None:
    assert heads.of_foundation(project(tmp_path, tiny_model)) == "Default"
    assert heads.of_foundation(project(tmp_path, tiny_multihead)) == "Default"
    assert heads.of_foundation(project(tmp_path, tiny_multihead, head="pt_head")) == "pt_head"


def test_labels_are_of_the_chosen_head(several: Path, tmp_path: Path) -> None:
    """Pseudolabels, and what they are kept under, are of the head that the settings name."""
    frames = molecules()[:4]
    made = {head: project(tmp_path, several, head=head) for head in HEADS[:2]}
    for name in ("train", "valid"):
        write_frames(made[HEADS[0]].replay / f"{name}.extxyz", frames)
    manifests = {head: pseudolabel.run(one) for head, one in made.items()}
    assert [manifest.head for manifest in manifests.values()] == HEADS[:2]
    assert len({manifest.train.address for manifest in manifests.values()}) == 2
    for head, one in made.items():
        predicted = predict.predict(several, frames, head=head, backend="torch").energy
        labels = [atoms.info["REF_energy"] for atoms in pseudolabel.of_project(one, frames).frames]
        assert labels == pytest.approx(predicted, abs=1e-9)
