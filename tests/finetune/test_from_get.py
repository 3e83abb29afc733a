"""From the host of a released foundation to a champion: fetched, remembered, fine-tuned, judged, loaded by its name.

Twins play the foundations.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import file_server
import numpy as np
import pytest
import yaml
from architectures import BUILD, build_mh1
from ase import Atoms
from conftest import ROOT
from file_server import FileServer
from trainings import molecules

import retemper
from retemper.cli import main
from retemper.config import foundation_files, foundation_lock, foundations
from retemper.config.project import FOUNDATION, Project
from retemper.core import downloads
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.data.charge import charge_of
from retemper.data.frames import read_frames, write_frames
from retemper.evaluation import stage as evaluation
from retemper.finetune import stage as finetune
from retemper.models import mace, predict
from retemper.models.head_names import TARGET
from retemper.prepare import dataset, e0s, inputs, pseudolabel, replay
from retemper.promotion import promote
from retemper.records.inputs import StageInputs
from retemper.records.training import Effective
from retemper.registry import register
from retemper.sweep import run as sweep

STRATEGY = "pseudolabel-replay"
TWINS: dict[str, Callable[[Path], Path]] = {
    "mace-mh-1": lambda path: build_mh1(path, list(foundations.shipped()["mace-mh-1"].heads or {})),
    "mace-mp-0-small": BUILD["mp-0-small"],
    "mace-mpa-0-medium": BUILD["mpa-0"],
    "mace-omol": BUILD["omol"],
}
HEADS = {"mace-mh-1": "matpes_r2scan"}  # that the settings name; it is not the entry's
QUICK = "mace-mh-1"
PARAMS: dict[str, Any] = {
    "system": "alcohols",
    "strategies": [STRATEGY],
    "seeds": [1],
    "dataset": {
        "files": ["data.extxyz"],
        "level_of_theory": "GFN2-xTB",
        "keys": {"stress": None},
        "group": "family",
        "valid": 0.2,
        "test": 0.2,
        "energy_window": 1e4,
    },
    "e0s": {"force": True, "max_error": 1000.0},
    "replay": {"number": 6, "valid": 3, "select": "random"},
    "finetune": {"epochs": 1, "batch_size": 4, "workers": 1},
    "promotion": {
        "gates": [{"metric": f"{part}.force_rmse", "max": 1e6, "by": "value"} for part in ("target", "drift")]
    },
}


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The foundation's host: it leads elsewhere, and breaks in the middle."""
    monkeypatch.setenv(downloads.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "PAUSE", 0.05)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with file_server.running() as running:
        monkeypatch.setenv(downloads.MIRROR, running.address)
        path = "/" + str(foundations.shipped()[name].url).split("/", 3)[3]
        running.redirects[path] = "/assets/1"
        running.files["/assets/1"] = TWINS[name](tmp_path / "twin.model").read_bytes()
        running.breaks["/assets/1"] = [200_000]
        yield running


def frames_for(name: str) -> list[Atoms]:
    """Molecules, a group for each formula; for the foundation that reads charge each with an anion of the SN2 set."""
    frames = molecules()
    for atoms in frames:
        atoms.info["family"] = atoms.get_chemical_formula()
    if name != "mace-omol":
        return frames
    every = read_frames(ROOT / "data/raw/sn2.extxyz.xz")
    ions = [atoms for atoms in every if set(atoms.numbers) == {1, 6, 17} and charge_of(atoms) == -1]
    for atoms, ion in zip(frames, ions, strict=True):
        ion.info["family"] = atoms.info["family"]
    return frames + ions


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in TWINS], indirect=True
)
def test_from_get_to_a_champion(name: str, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "project"
    shutil.copytree(ROOT / "strategies", root / "strategies")
    write_frames(root / "data.extxyz", frames_for(name))
    settings = {**PARAMS, "foundation": name, "head": HEADS.get(name)}
    (root / "params.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(root)
    project = Project.here()
    if foundations.shipped()[name].licence == "ASL":
        with pytest.raises(RetemperError, match="was not accepted"):
            inputs.run(project)
        assert server.requests == []
    main.main(["foundations", "get", name, "--accept-licence", "--weights-only"])
    assert len(server.asked("/assets/1")) == 2 and server.asked("/assets/1")[1] > 0
    inputs.run(project)
    weights = foundation_lock.read(root).foundations[name].sha256
    assert weights == StageInputs.read(project.inputs("finetune")).weights == sha256(tmp_path / "twin.model")
    monkeypatch.setenv(downloads.OFFLINE, "1")
    for stage in (dataset, e0s, replay, pseudolabel):
        stage.run(project)
    for stage in (sweep, finetune):
        stage.run(project, STRATEGY)
    trained = project.model(STRATEGY, 1)
    assert Effective.read(project.seed(STRATEGY, 1) / "effective.json").differences == []
    assert mace.elements(trained) == mace.elements(project.weights)
    for model in (FOUNDATION, STRATEGY):
        evaluation.run(project, model)
    register.run(project, STRATEGY)
    verdict = promote.run(project)
    assert verdict is not None and verdict.champion is not None
    champion, test = retemper.load("alcohols@champion"), read_frames(project.structures("test"))
    want = predict.predict(trained, test, head=TARGET, backend="torch")
    for atoms, energy, forces in zip(test, want.energy, want.forces, strict=True):
        champion.calculate(atoms, ["energy", "forces"])
        assert champion.results["energy"] == pytest.approx(energy, abs=1e-8)
        np.testing.assert_allclose(champion.results["forces"], forces, atol=1e-8)
    assert {charge_of(atoms) for atoms in test} == ({0.0, -1.0} if name == "mace-omol" else {0.0})
    foundation_files.place(project.foundation, root).write_bytes(b"another file")
    with pytest.raises(RetemperError, match="is not what it was"):
        e0s.run(Project.here())
