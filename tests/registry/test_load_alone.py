"""Registered models outside: exports, loading, and what a wrong name or device gets."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import build_tiny
from run_files import water_frames

import retemper
from retemper.config.project import Project
from retemper.config.settings import load_settings
from retemper.core.errors import RetemperError
from retemper.core.files import read_json, sha256
from retemper.models import mace, predict
from retemper.promotion import promote
from retemper.registry import aliases, export, serve
from retemper.tracking.store import tracking_uri

EXPORTS = [("model", "salt-3.model"), ("ase", "salt-3-ase.py"), ("lammps", "salt-3-lammps.pt"),
           pytest.param("lammps-mliap", "salt-3-mliap_lammps.pt", marks=pytest.mark.slow),
           ("torch-sim", "salt-3-torch-sim.py")]  # fmt: skip


@pytest.mark.parametrize(("to", "file"), EXPORTS)
def test_exports_give_the_registered_models_numbers(project: Path, tmp_path: Path, to: str, file: str) -> None:
    """`export` compares by itself; here the right head is told from the wrong one by another way to the weights."""
    if to == "torch-sim":
        pytest.importorskip("torch_sim")
    made = export.export(project, "salt/3", to, tmp_path)
    assert file in {path.name for path in made}
    about = read_json(tmp_path / f"salt-3-{to}.json")
    assert ("lammps" in about) == to.startswith("lammps")
    assert about["head"] == "Default" and about["elements"] == ["H", "C", "N", "O", "Na", "Cl"]
    weights = project / "runs/finetune/replay/seed-3/model.safetensors"
    with pytest.raises(RetemperError, match="does not give MACE's own energies"):
        export._check(weights, "pt_head", made[0], to, "float64")
    assert not made[0].exists()


def test_an_exported_calculator_computes_in_its_own_precision(tmp_path: Path) -> None:
    """MACE's own repels pairs in torch's default precision, which costs float64 its last digits (4e-10 eV here)."""
    (atoms,) = water_frames(1, seed=5)
    model = build_tiny(tmp_path / "model.model", ["Default"], pair_repulsion=True)
    words = {"about": "a", "model": "made.model", "head": "Default", "dtype": "float64", "sha256": sha256(model)}
    literals = {name: repr(value) for name, value in words.items()}
    _, script = export._write(model, "Default", "ase", tmp_path, "made", "float64", literals)
    spec = importlib.util.spec_from_file_location("exported", script)
    assert spec is not None and spec.loader is not None
    exported = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(exported)
    with mace.default_dtype("float32"):
        calculator = exported.calculator(device="cpu")
        calculator.calculate(atoms, ["energy"])
    want = predict.predict(model, [atoms], head="Default", backend="torch").energy[0]
    assert calculator.results["energy"] == pytest.approx(want, abs=1e-10)


def test_every_head_is_exported_and_served_by_name(project: Path, tmp_path: Path) -> None:
    """The replay head's energies, not the target's, which are exported beside them under another name."""
    from starlette.testclient import TestClient

    (atoms,) = water_frames(1, seed=5)
    weights = project / "runs/finetune/replay/seed-3/model.safetensors"
    wanted = {head: float(predict.predict(weights, [atoms], head=head).energy[0]) for head in ("Default", "pt_head")}
    assert abs(wanted["Default"] - wanted["pt_head"]) > 1.0
    export.export(project, "salt/3", "model", tmp_path)
    export.export(project, "salt/3", "model", tmp_path, head="pt_head")
    for head, name in (("Default", "salt-3.model"), ("pt_head", "salt-3-pt_head.model")):
        assert predict.predict(tmp_path / name, [atoms]).energy[0] == pytest.approx(wanted[head], abs=1e-6)
    with pytest.raises(RetemperError, match="did you mean 'pt_head'"):
        export.export(project, "salt/3", "model", tmp_path, head="pt_haed")
    row = {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}
    with TestClient(serve.application(project, "salt/3", tmp_path / "served", "pt_head")) as client:
        answer = client.post("/invocations", json={"dataframe_records": [row]}).json()
    assert answer["predictions"][0]["energy"] == pytest.approx(wanted["pt_head"], abs=1e-6)


def test_a_model_file(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside any project; energies are MACE's own."""
    from mace.calculators import MACECalculator

    monkeypatch.chdir(tmp_path)
    water = water_frames(1, seed=2)[0]
    ours = retemper.load(str(tiny_model), device="cpu").get_potential_energy(water)
    theirs = MACECalculator(model_paths=[str(tiny_model)], device="cpu", default_dtype="float64", head="Default")
    assert ours == pytest.approx(theirs.get_potential_energy(water), abs=1e-9)
    with pytest.raises(RetemperError, match="head"):
        retemper.load(str(tiny_model), head="none")
    with pytest.raises(RetemperError, match=r"nothing\.model"):
        retemper.load("nothing.model")


def test_ase_script_and_load_give_the_same_energies(project: Path, tmp_path: Path) -> None:
    export.export(project, "salt/3", "ase", tmp_path)
    code = (
        "import runpy, sys; from run_files import water_frames\n"
        "calculator = runpy.run_path(sys.argv[1])['calculator']()\n"
        "print([float(calculator.get_potential_energy(a)) for a in water_frames(2, seed=5)])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "salt-3-ase.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    calculator = retemper.load("models:/salt/3", root=project)
    own = [float(calculator.get_potential_energy(atoms)) for atoms in water_frames(2, seed=5)]
    assert np.abs(np.subtract(json.loads(done.stdout.splitlines()[-1]), own)).max() < 1e-6


def test_load_for_torch_sim_uses_the_target_head(project: Path) -> None:
    torch_sim = pytest.importorskip("torch_sim")
    import torch

    model = retemper.load("salt/3", to="torch-sim", device="cpu", root=project)
    calculator = retemper.load("salt/3", device="cpu", root=project)
    frames = water_frames(2, seed=5)
    for atoms in frames:
        atoms.center(vacuum=8.0)
    found = model(torch_sim.io.atoms_to_state(frames, torch.device("cpu"), torch.float64))
    own = [calculator.get_potential_energy(atoms) for atoms in frames]
    assert np.abs(found["energy"].detach().numpy() - own).max() < 1e-6


def test_wrong_names_and_devices(project: Path) -> None:
    for call, message in (
        (lambda: retemper.load("salt/1", to="jax", root=project), "ase, torch-sim"),
        (lambda: retemper.load("salt/1", device="cuda:99", root=project), "is not there"),
        (lambda: retemper.load("salt@champion", root=project), "Unknown alias of salt 'champion'"),
        (lambda: aliases.rollback(project, "slat", "x"), "did you mean 'salt'"),
        (lambda: aliases.move(project, "salt", "winner", "1", "override", "x"), "challenger, champion"),
        (lambda: aliases.move(project, "salt", "champion", "9", "override", "x"), "Unknown version of salt '9'"),
        (
            lambda: promote.override(Project(project, load_settings("params.yaml")), "salt", "1", "champion", None),
            "no verdict",
        ),
    ):
        with pytest.raises(RetemperError, match=message):
            call()


def test_loads_without_the_project(project: Path) -> None:
    """A fresh process in another folder that knows nothing but MLFLOW_TRACKING_URI."""
    aliases.move(project, "salt", "champion", "3", "override", "x")
    code = (
        "import retemper; from run_files import water_frames\n"
        "calculator = retemper.load('models:/salt@champion')\n"
        "print([float(calculator.get_potential_energy(a)) for a in water_frames(2, seed=5)])"
    )
    paths = [str(Path(retemper.__file__).parents[1]), str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MLFLOW_TRACKING_URI": tracking_uri(project)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    calculator = retemper.load("salt/3", device="cpu", root=project)
    own = [float(calculator.get_potential_energy(atoms)) for atoms in water_frames(2, seed=5)]
    assert np.abs(np.subtract(json.loads(done.stdout.splitlines()[-1]), own)).max() < 1e-6
