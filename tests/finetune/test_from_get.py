"""From the host of a released foundation to a model: fetched, remembered, fine-tuned; a twin plays the foundation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import file_server
import pytest
import yaml
from architectures import build_mh1
from conftest import ROOT
from file_server import FileServer
from trainings import molecules

from retemper.cli import main
from retemper.config import foundation_files, foundation_lock, foundations
from retemper.config.project import Project
from retemper.core import downloads
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.data.frames import write_frames
from retemper.finetune import stage as finetune
from retemper.models import mace
from retemper.prepare import dataset, e0s, inputs, pseudolabel, replay
from retemper.records.training import Effective
from retemper.sweep import run as sweep

NAME = "mace-mh-1"
PARAMS: dict[str, Any] = {
    "system": "alcohols",
    "foundation": NAME,
    "head": "matpes_r2scan",
    "strategies": ["pseudolabel-replay"],
    "seeds": [1],
    "dataset": {
        "files": ["data.extxyz"],
        "level_of_theory": "GFN2-xTB",
        "keys": {"stress": None},
        "group": "composition",
        "valid": 0.2,
        "test": 0.2,
        "energy_window": 1e4,
    },
    "e0s": {"force": True, "max_error": 1000.0},
    "replay": {"number": 6, "valid": 3, "select": "random"},
    "finetune": {"epochs": 1, "batch_size": 4, "workers": 1},
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The foundation's host: it leads elsewhere, and breaks in the middle."""
    monkeypatch.setenv(downloads.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "PAUSE", 0.05)
    with file_server.running() as running:
        monkeypatch.setenv(downloads.MIRROR, running.address)
        path = "/" + str(foundations.shipped()[NAME].url).split("/", 3)[3]
        running.redirects[path] = "/assets/1"
        running.files["/assets/1"] = build_mh1(tmp_path / "twin.model").read_bytes()
        running.breaks["/assets/1"] = [200_000]
        yield running


def test_from_get_to_a_model(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "project"
    shutil.copytree(ROOT / "strategies", root / "strategies")
    write_frames(root / "data.extxyz", molecules())
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    monkeypatch.chdir(root)
    project = Project.here()
    with pytest.raises(RetemperError, match="was not accepted"):
        inputs.run(project)
    assert server.requests == []
    main.main(["foundations", "get", NAME, "--accept-licence"])
    assert len(server.asked("/assets/1")) == 2 and server.asked("/assets/1")[1] > 0
    inputs.run(project)
    weights = foundation_lock.read(root).foundations[NAME].sha256
    assert weights == sha256(tmp_path / "twin.model")
    assert all(one.weights == weights for one in [inputs.StageInputs.read(project.inputs("finetune"))])
    monkeypatch.setenv(downloads.OFFLINE, "1")
    dataset.run(project)
    e0s.run(project)
    replay.run(project)
    pseudolabel.run(project)
    sweep.run(project, "pseudolabel-replay")
    summary = finetune.run(project, "pseudolabel-replay")
    folder = project.seed("pseudolabel-replay", 1)
    proof = Effective.read(folder / "effective.json")
    assert proof.differences == [] and summary.seeds.keys() == {1}
    assert mace.elements(project.model("pseudolabel-replay", 1)) == mace.elements(project.weights)
    foundation_files.place(project.foundation, root).write_bytes(b"another file")
    with pytest.raises(RetemperError, match="is not what it was"):
        e0s.run(Project.here())
