"""What `retemper init` proposes for labelled data by others runs through dataset and e0s without an edit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from retemper.config.settings import load_settings

DATA = os.environ.get("RETEMPER_DATA", "")
pytestmark = pytest.mark.skipif(not DATA, reason="RETEMPER_DATA names no folder of labelled data")


@pytest.mark.parametrize(
    ("file", "level", "group", "rmse"),
    [  # energy error after the shift of E0s, meV/atom, below which the miniature starts
        pytest.param("real/3bpa_300K", "wB97X/6-31G(d)", "auto", 10, marks=pytest.mark.slow),
        ("generated/sn2_b3lyp_def2-svpd", "B3LYP/def2-SVPD", "name", 150),
        pytest.param("real/mlearn_Li_PBE", "PBE", "auto", 50, marks=pytest.mark.slow),
    ],
)
def test_e0s_without_an_edit(installed, tmp_path: Path, file: str, level: str, group: str, rmse: float) -> None:
    path = Path(DATA, f"{file}.extxyz")
    installed.run(tmp_path, "retemper", "init", "mine", "--data", str(path), "--level", level)
    project = tmp_path / "mine"
    settings = load_settings(project / "params.yaml")
    assert (settings.dataset.group, settings.dataset.level_of_theory) == (group, level)
    installed.dvc(project, "repro", "dataset", "e0s")
    assert json.loads((project / "runs/e0s/e0s.json").read_text())["error_per_atom"]["rmse"] < rmse
    assert installed.run(project, "git", "status", "--porcelain").split() == ["??", "dvc.lock"]


def test_a_foundation_that_has_to_be_fetched(installed, tmp_path: Path) -> None:
    """Manganese: the miniature does not know it."""
    path = Path(DATA, "real/li_mn_o_PBE.extxyz")
    said = installed.run(tmp_path, "retemper", "init", "mine", "--data", str(path), "--level", "PBE")
    settings = load_settings(tmp_path / "mine/params.yaml")
    assert settings.foundation == "mace-mp-0b2-small" and settings.dataset.keys.stress == "REF_stress"
    assert "retemper foundations get mace-mp-0b2-small" in said and not settings.e0s.force
