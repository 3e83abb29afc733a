"""Rounds and campaigns of earlier versions: users keep them for good."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from retemper.core.errors import RetemperError
from retemper.core.files import digest, read_json, write_json
from retemper.records.campaign import Campaign
from retemper.records.round import Round

CALIBRATION = {
    "frames": 6, "groups": 3, "atoms": 222, "alpha": 0.9, "floor": 0.002, "spearman": 0.42, "spearman_low": -0.01,
    "spearman_high": 0.72, "auroc": 0.8, "miscalibration": 0.03, "rmse": 0.2, "informative": False,
}  # fmt: skip
STRUCTURE = {
    "formula": "H18ClNaO9", "group": "nacl-08", "explorer": "rattle", "path": "rattle-0002", "amplitude": 0.1,
    "expected_error": 2.2, "round": 1, "pick": 1, "uncertainty_rank": 2, "of": 10, "label": "1111111111111111",
}  # fmt: skip
ROUND: dict[str, Any] = {  # as version 0.1 wrote it
    "round": 1, "labels": 3, "seed": 1, "strategy": "naive", "champion": True, "models": {"1": "82cd", "2": "2016"},
    "lead": 1, "data": {"train": "aaaaaaaaffffffff", "valid": "dddddddd99999999"},
    "oracle_check": {"number": 1, "energy": 1.7e-09, "forces": 2.9e-07},
    "settings": {
        "oracle": {"name": "xtb", "options": {"method": "GFN2-xTB"}},
        "explorers": [{"name": "rattle", "options": {}}],
        "uncertainty": {"name": "llpr", "options": {}},
        "selector": {"name": "combined", "options": {}},
        "strategy": None, "labels": 3, "candidates": 12, "trust": None, "elements": None, "max_atoms": 200,
        "apart": 0.05, "unphysical": False, "verify": 1, "timeout": 3600.0, "retries": 1, "workers": None,
        "ray": False, "seed": 0, "stop": {"gates": 2, "gain": 0.02},
    },
    "level_of_theory": "GFN2-xTB", "git": {"commit": "63fe", "dirty": False}, "software": {"retemper": "0.1.0"},
    "candidates": 12, "unphysical": 0, "turned_away": {"duplicates": 2}, "notes": [],
    "calibration": CALIBRATION, "prospective": {**CALIBRATION, "informative": True},
    "labelled": [STRUCTURE], "failed": [{**STRUCTURE, "reason": "timeout: more than 5 s"}],
    "identity": "55555555bbbbbbbb", "returned": None,
}  # fmt: skip
RESULT: dict[str, Any] = {
    "round": 1, "labelled": 3, "failed": 0, "identity": "55555555bbbbbbbb", "used": 2,
    "unused": {"dataset.max_force": 1}, "train": 26, "valid": 6, "test": "dddddddd88888888", "strategy": "naive",
    "champion": True, "force_rmse": {"mean": 178.8, "std": 0.5, "low": 139.0, "high": 229.9},
    "gates": {"hold": True, "outcomes": [{"metric": "target.force_rmse", "rule": "lower", "passed": True}]},
    "selector": "combined",
}  # fmt: skip


def test_a_round_of_before_there_were_forms_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "round.json", ROUND)
    record = Round.read(tmp_path / "round.json")
    assert record.models[2] == "2016" and record.settings.uncertainty.name == "llpr"
    assert record.failed[0].reason == "timeout: more than 5 s"
    record.write(tmp_path / "again.json")
    assert read_json(tmp_path / "again.json") == {"form": 1, **ROUND}
    assert Round.read(tmp_path / "again.json") == record


def test_a_round_of_the_first_versions_is_read(tmp_path: Path) -> None:
    """Its labels had no common hash, its calibration no groups and no floor."""
    content = copy.deepcopy(ROUND)
    del content["identity"], content["returned"], content["calibration"]["groups"], content["calibration"]["floor"]
    write_json(tmp_path / "round.json", content)
    record = Round.read(tmp_path / "round.json")
    assert record.identity == digest(["1111111111111111"]) and record.returned is None
    assert record.calibration.groups is None and record.calibration.floor == 0.0
    assert record.prospective.groups == 3


def test_a_broken_round_is_told_from_one_of_before(tmp_path: Path) -> None:
    write_json(tmp_path / "round.json", {**ROUND, "labelled": [{}]})
    with pytest.raises(RetemperError, match=r"labelled.0.formula: Field required") as error:
        Round.read(tmp_path / "round.json")
    assert error.value.fix == "dvc checkout data/rounds/*.dvc"


def test_a_campaign_of_before_there_were_forms_is_read(tmp_path: Path) -> None:
    content = {"rounds": [RESULT], "stopped": None}
    write_json(tmp_path / "campaign.json", content)
    campaign = Campaign.read(tmp_path / "campaign.json")
    assert campaign.rounds[0].sentence().startswith("2 of 3 labels used (dataset.max_force 1), 0 failed")
    campaign.write(tmp_path / "again.json")
    assert read_json(tmp_path / "again.json") == {"form": 1, **content}
    first = {name: value for name, value in RESULT.items() if name not in ("identity", "used", "unused")}
    write_json(tmp_path / "campaign.json", {"rounds": [first]})
    (result,) = Campaign.read(tmp_path / "campaign.json").rounds
    assert result.used == result.labelled == 3 and result.identity is None
