"""`retemper doctor`: what would fail is said by the code that would refuse it, and nothing of the project changes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from retemper.advise import doctor
from retemper.cli.main import main


def _project(folder: Path, history: bool = True, **sections: Any) -> Path:
    """The example with few structures, and `sections` of other settings."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content |= {"strategies": ["naive", "replay"], "promotion": {"gates": [{"metric": "forgetting_ratio", "max": 2}]}}
    content["replay"] = {
        "pools": ["foundations/pretraining/valid.extxyz.xz"],
        "number": 20,
        "valid": 4,
        "select": "random",
    }
    content |= sections
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    for name in ("foundations", "data", "strategies"):
        (folder / name).symlink_to(ROOT / name)
    if history:
        (folder / ".gitignore").write_text("/foundations\n/data\n/strategies\n")
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        for command in (("git", "init", "-q"), ("git", *who, "commit", "-q", "--allow-empty", "-m", "first")):
            subprocess.run(command, cwd=folder, check=True)
        (folder / ".dvc").mkdir()
    return folder


def _texts(root: Path, status: str) -> dict[str, str]:
    return {finding.subject: finding.text for finding in doctor.examine(root) if finding.status == status}


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_sound_project(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = _project(tmp_path)
    monkeypatch.chdir(root)
    main(["doctor"])
    said = capsys.readouterr().out
    for subject in ("environment", "settings", "history", "tracking", "oracle", "foundation", "data", "E0s", "replay"):
        assert f"ok       {subject}" in said
    assert "50 train, 20 valid, 60 test" in said and "with them the foundation misses 6.5 meV/atom" in said
    assert "nothing that would stop it was seen" in said
    assert not (root / "runs").exists() and not (root / "mlflow.db").exists()


def test_what_nothing_can_pass_and_what_is_not_there(tmp_path: Path) -> None:
    root = _project(
        tmp_path,
        history=False,
        foundation="models/not-there.model",
        seeds=[1],
        promotion={"gates": [{"metric": "robustness.rdf", "max": 5}]},
        robustness={"metrics": ["md"], "oracle": "ase:no.such.module:Calculator()"},
    )
    fails = _texts(root, "fails")
    assert "robustness.rdf" in fails["gates"] and "git" in fails["history"]
    assert "no.such.module" in fails["oracle"] and "not-there.model" in fails["foundation"]
    assert not {"data", "E0s", "replay"} & {finding.subject for finding in doctor.examine(root)}
    assert "one seed" in _texts(root, "warning")["settings"]


def test_data_without_the_labels_that_are_named(tmp_path: Path) -> None:
    dataset = yaml.safe_load((ROOT / "params.yaml").read_text())["dataset"]
    dataset["keys"] = {"energy": "energy", "forces": "forces", "stress": None}
    root = _project(tmp_path, dataset=dataset)
    assert "REF_energy" in _texts(root, "fails")["data"]  # the key that the frames have, as the stage says it


def test_settings_that_cannot_be_read_end_it(tmp_path: Path) -> None:
    root = _project(tmp_path, history=False, strategies=["naiv"])
    assert "'naive'" in _texts(root, "fails")["settings"]


def test_the_status_tells_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_project(tmp_path, history=False, strategies=["naiv"]))
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == 1


def test_few_groups_and_the_gates_that_they_cannot_pass(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["dataset"] |= {"test": 0.08, "max_train": 20}
    root = _project(tmp_path, dataset=content["dataset"], promotion=content["promotion"])
    said = _texts(root, "warning")["data"]
    assert "below 5 nothing is told apart" in said and "compares with the foundation cannot be passed" in said
    assert "`by: value`" in said
