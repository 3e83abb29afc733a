"""Registered models: one version a result, and back as the same calculator."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import as_trained
from run_files import water_frames, write_evaluation, write_preparation, write_project, write_training

import retemper
from retemper.config.project import Project
from retemper.config.settings import Settings
from retemper.core.errors import RetemperError
from retemper.core.files import sha256
from retemper.models import model_file
from retemper.records.registration import Registration
from retemper.registry import artifact, register
from retemper.registry.client import Version
from retemper.tracking.store import connect, tracking_uri


def energies(model: Path, head: str) -> list[float]:
    """What MACE's own calculator says of the test structures (eV)."""
    from mace.calculators import MACECalculator

    calculator = MACECalculator(models=model_file.load(model), device="cpu", default_dtype="float64", head=head)
    return [float(calculator.get_potential_energy(atoms)) for atoms in water_frames(3, seed=5)]


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_multihead: Path
) -> tuple[Path, Settings, dict[str, Registration]]:
    """A project with two strategies registered: naive (seeds 1, 2) and replay (seeds 1, 2)."""
    root = tmp_path_factory.mktemp("registry")
    settings = write_project(root, tiny_model, ["naive", "replay"], [1, 2])
    write_preparation(root)
    write_training(root, "naive", {1: tiny_model, 2: tiny_multihead})
    write_training(root, "replay", {1: tiny_multihead, 2: tiny_multihead}, replay="original")
    write_evaluation(root, "foundation", {0: 90.0}, {0: 50.0}, 50.0)
    write_evaluation(root, "naive", {1: 24.0, 2: 20.0}, {1: 400.0, 2: 500.0}, 50.0)
    write_evaluation(root, "replay", {1: 21.0, 2: 25.0}, {1: 80.0, 2: 90.0}, 50.0, replay_head={1: 55.0, 2: 56.0})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        records = {name: register.run(Project(root, settings), name) for name in ("naive", "replay")}
    return root, settings, records


def test_record_says_what_was_registered(project: tuple[Path, Settings, dict[str, Registration]]) -> None:
    root, _, records = project
    record = Registration.read(root / "runs/register/naive.json")
    assert record == records["naive"]
    assert record.model == "salt"
    assert record.versions == {1: "1", 2: "2"}
    assert record.best is not None and record.best.seed == 2
    assert record.best.numbers["target.force_rmse"] == pytest.approx(20.0)
    assert record.best.numbers["forgetting_ratio"] == pytest.approx(10.0)
    other = records["replay"].best
    assert other is not None and other.numbers["forgetting_ratio_replay_head"] == pytest.approx(1.1)


def test_version_carries_numbers_and_lineage(project: tuple[Path, Settings, dict[str, Registration]]) -> None:
    root, _, _ = project
    client: Any = connect(root)
    version = client.get_model_version("salt", "3")
    assert version.tags["strategy"] == "replay" and version.tags["seed"] == "1"
    assert float(version.tags["target.force_rmse"]) == pytest.approx(21.0)
    assert float(version.tags["forgetting_ratio"]) == pytest.approx(1.6)
    assert version.tags["sha256"] == sha256(root / "runs/finetune/replay/seed-1/model.safetensors")
    for fact in (
        "GFN2-xTB",
        "40 train",
        "| Target, force RMSE (meV/Å) | 21 | 19.95 to 22.05 |",
        version.tags["sha256"],
    ):
        assert fact in version.description
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert {m.key: m.value for m in model.metrics}["target.force_rmse"] == pytest.approx(21.0)
    found = client.search_logged_models([model.experiment_id], "metrics.`target.force_rmse` < 20.5")
    assert [entry.name for entry in found] == ["salt-naive-seed-2"]
    assert model.source_run_id == version.run_id


def test_candidate_is_the_best_seed_of_the_best_strategy(
    project: tuple[Path, Settings, dict[str, Registration]],
) -> None:
    root, _, _ = project  # mean over seeds: naive 22, replay 23
    assert str(connect(root).get_model_version_by_alias("salt", "candidate").version) == "2"


def test_registering_again_changes_nothing_but_new_numbers(
    project: tuple[Path, Settings, dict[str, Registration]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root, settings, records = project
    assert register.run(Project(root, settings), "naive") == records["naive"]
    client: Any = connect(root)
    assert len(client.search_model_versions("name = 'salt'")) == 4
    write_evaluation(root, "naive", {1: 24.0, 2: 30.0}, {1: 400.0, 2: 500.0}, 50.0)
    again = register.run(Project(root, settings), "naive")
    assert again.versions == records["naive"].versions
    assert again.best is not None and again.best.seed == 1
    version = client.get_model_version("salt", "2")
    assert float(version.tags["target.force_rmse"]) == pytest.approx(30.0)
    assert "| Target, force RMSE (meV/Å) | 30 |" in version.description
    assert str(client.get_model_version_by_alias("salt", "candidate").version) == "3"  # mean: naive 27, replay 23
    write_evaluation(root, "naive", {1: 24.0, 2: 20.0}, {1: 400.0, 2: 500.0}, 50.0)
    assert register.run(Project(root, settings), "naive") == records["naive"]


WRITES = (
    "create_run", "log_batch", "log_param", "log_metric", "set_tag", "log_inputs", "log_outputs", "set_terminated",
    "create_logged_model", "log_model_artifacts", "finalize_logged_model", "set_logged_model_tags",
    "delete_logged_model", "create_registered_model", "set_registered_model_tag", "create_model_version",
    "set_model_version_tag", "update_model_version", "set_registered_model_alias",
)  # fmt: skip


def stop_after(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The process is interrupted when it has written `number` times to MLflow."""
    from mlflow import MlflowClient

    done = iter(range(1, number + 1))

    def stopping(do: Any) -> Any:
        def write(self: Any, *arguments: Any, **named: Any) -> Any:
            result = do(self, *arguments, **named)
            if next(done, None) == number:
                raise KeyboardInterrupt
            return result

        return write

    for name in WRITES:
        monkeypatch.setattr(MlflowClient, name, stopping(getattr(MlflowClient, name)))


def standing(root: Path) -> dict[str, Any]:
    """What is on record of the versions: tags, metrics of runs and of logged models, logged models that live."""
    client: Any = connect(root)
    versions = sorted(client.search_model_versions("name = 'salt'"), key=lambda version: int(version.version))
    logged = [client.get_logged_model(Version.of(version).model_id) for version in versions]
    runs = [client.get_run(version.run_id) for version in versions]
    of_place = (artifact.TAG, "retemper.project")  # artifacts carry the time they were made
    return {
        "tags": [{name: v for name, v in version.tags.items() if name not in of_place} for version in versions],
        "aliases": client.get_registered_model("salt").aliases,
        "metrics": [sorted((metric.key, metric.value) for metric in model.metrics or []) for model in logged],
        "runs": [(run.info.status, run.data.metrics, run.data.params) for run in runs],
        "model tags": [{name: v for name, v in model.tags.items() if name not in of_place} for model in logged],
        "living": len(client.search_logged_models([runs[0].info.experiment_id])),
        "all runs": len(client.search_runs([runs[0].info.experiment_id])),
    }


@pytest.mark.hostile("kills")
def test_registering_that_is_stopped_after_any_write_ends_as_if_it_was_not(tmp_path: Path, tiny_model: Path) -> None:
    """The k-th attempt is stopped after k writes, until one ends; then the same with other numbers."""

    def project(name: str) -> tuple[Path, Settings]:
        root = tmp_path / name
        settings = write_project(root, tiny_model, ["naive"], [1, 2])
        write_preparation(root)
        write_training(root, "naive", {1: tiny_model, 2: tiny_model})
        write_evaluation(root, "foundation", {0: 90.0}, {0: 50.0}, 50.0)
        return root, settings

    (left_alone, settings), (stopped, _) = project("alone"), project("stopped")
    for rmse in (24.0, 30.0):
        for root in (left_alone, stopped):
            write_evaluation(root, "naive", {1: rmse, 2: 2 * rmse}, {1: 400.0, 2: 300.0}, 50.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            register.run(Project(left_alone, settings), "naive")
        attempts, ended = 0, False
        while not ended:
            attempts += 1
            with pytest.MonkeyPatch.context() as patch:
                patch.delenv("MLFLOW_TRACKING_URI", raising=False)
                stop_after(patch, attempts)
                with contextlib.suppress(KeyboardInterrupt):
                    register.run(Project(stopped, settings), "naive")
                    ended = True
        assert attempts > 3
        assert standing(stopped) == standing(left_alone)


@pytest.mark.parametrize(("name", "strategy", "seed"), [("salt/1", "naive", 1), ("models:/salt/3", "replay", 1)])
def test_loads_back_with_the_same_energies(
    project: tuple[Path, Settings, dict[str, Registration]],
    name: str,
    strategy: str,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root, _, _ = project
    calculator = retemper.load(name, root=root)
    expected = energies(root / f"runs/finetune/{strategy}/seed-{seed}/model.safetensors", "Default")
    got = [float(calculator.get_potential_energy(atoms)) for atoms in water_frames(3, seed=5)]
    assert np.abs(np.subtract(got, expected)).max() < 1e-6


def test_multihead_model_loads_with_the_target_head(
    project: tuple[Path, Settings, dict[str, Registration]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root, _, _ = project
    model = root / "runs/finetune/replay/seed-1/model.safetensors"
    got = retemper.load("salt/3", root=root).get_potential_energy(water_frames(3, seed=5)[0])
    assert abs(got - energies(model, "Default")[0]) < 1e-6
    replayed = energies(model, "pt_head")
    assert abs(got - replayed[0]) > 1.0
    of_head = retemper.load("salt/3", head="pt_head", root=root)
    assert of_head.get_potential_energy(water_frames(3, seed=5)[0]) == pytest.approx(replayed[0], abs=1e-6)
    with pytest.raises(RetemperError, match="pt_head"):
        retemper.load("salt/3", head="pt_haed", root=root)


def test_loads_in_a_fresh_process(project: tuple[Path, Settings, dict[str, Registration]]) -> None:
    root, _, _ = project
    script = (
        "import json; from run_files import water_frames; import retemper\n"
        "calculator = retemper.load('salt/1')\n"
        "print(json.dumps([float(calculator.get_potential_energy(a)) for a in water_frames(3, seed=5)]))"
    )
    import os

    paths = [str(Path(retemper.__file__).parents[1]), str(Path(__file__).parents[1])]
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout.splitlines()[-1])
    expected = energies(root / "runs/finetune/naive/seed-1/model.safetensors", "Default")
    assert np.abs(np.subtract(got, expected)).max() < 1e-6


def test_mlflow_serves_structures_as_json(
    project: tuple[Path, Settings, dict[str, Registration]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.pyfunc

    root, _, _ = project
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(root))
    client: Any = connect(root)
    place = client.get_logged_model(client.get_model_version("salt", "1").source.removeprefix("models:/"))
    model = mlflow.pyfunc.load_model(place.artifact_location)
    frames = water_frames(3, seed=5)
    frames[1].set_cell([8.0, 8.0, 8.0])
    frames[1].pbc = True
    rows: list[dict[str, Any]] = [
        {
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
            "pbc": atoms.pbc.tolist(),
        }
        for atoms in frames
    ]
    answer = model.predict(pd.DataFrame(rows))
    with pytest.raises(Exception, match="structure 1 has collapsed: two atoms are 0 A apart"):
        model.predict(pd.DataFrame([rows[0], {**rows[1], "positions": [[0.0, 0.0, 0.0]] * len(frames[1])}]))
    del rows[0]["cell"], rows[0]["pbc"]  # may be left out
    del rows[1]["pbc"]  # periodic because there is a cell
    again = model.predict(pd.DataFrame(rows))
    assert np.abs(again["energy"] - answer["energy"]).max() < 1e-9
    calculator = retemper.load("salt/1", root=root)
    for index, atoms in enumerate(frames):
        atoms.calc = calculator
        assert answer["energy"][index] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        assert np.abs(np.array(answer["forces"][index]) - atoms.get_forces()).max() < 1e-6
    assert np.abs(np.array(answer["stress"][1]) - frames[1].get_stress(voigt=False)).max() < 1e-8
    assert answer["stress"][0] is None


def test_tampered_weights_are_not_opened(
    project: tuple[Path, Settings, dict[str, Registration]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pickle that would leave a mark when it is opened takes the place of the weights."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root, _, _ = project
    version: Any = connect(root).get_model_version("salt", "4")
    (stored,) = (root / "mlartifacts").rglob(f"{version.source.removeprefix('models:/')}/**/model.safetensors")
    original = stored.read_bytes()
    mark = tmp_path / "opened"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (mark,))

    import torch

    torch.save(Evil(), stored)
    try:
        with pytest.raises(RetemperError, match="were not opened"):
            retemper.load("salt/4", root=root)
        assert not mark.exists()
        torch.load(io.BytesIO(stored.read_bytes()), weights_only=False)
        assert mark.exists()  # the trap works
    finally:
        stored.write_bytes(original)


def test_tampered_weights_are_not_served(
    project: tuple[Path, Settings, dict[str, Registration]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own way to the model checks the sha256 as well."""
    import mlflow.pyfunc

    root, _, _ = project
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri(root))
    version: Any = connect(root).get_model_version("salt", "4")
    place = connect(root).get_logged_model(version.source.removeprefix("models:/")).artifact_location
    (stored,) = Path(place.removeprefix("file://")).rglob("model.safetensors")
    original = stored.read_bytes()
    stored.write_bytes(original + b"x")
    try:
        with pytest.raises(Exception, match="was not opened"):
            mlflow.pyfunc.load_model(place)
    finally:
        stored.write_bytes(original)
    mlflow.pyfunc.load_model(place)


def test_changed_model_file_is_not_registered(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = write_project(tmp_path, tiny_model)
    write_training(tmp_path, "naive", {1: tiny_model})
    write_evaluation(tmp_path, "foundation", {0: 90.0}, {0: 50.0}, 50.0)
    with pytest.raises(RetemperError, match="naive has not been evaluated"):
        register.run(Project(tmp_path, settings), "naive")
    write_evaluation(tmp_path, "naive", {1: 24.0}, {1: 400.0}, 50.0)
    with (tmp_path / "runs/finetune/naive/seed-1/model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(RetemperError, match="is not the model that was trained"):
        register.run(Project(tmp_path, settings), "naive")
    assert not (tmp_path / "runs/register/naive.json").exists()


def test_unknown_names_list_the_options(
    project: tuple[Path, Settings, dict[str, Registration]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root, _, _ = project
    for name, message in (
        ("slat", "did you mean 'salt'"),
        ("salt/9", "version of salt '9'"),
        ("salt@best", "candidate"),
    ):
        with pytest.raises(RetemperError, match=message):
            retemper.load(name, root=root)
    with pytest.raises(RetemperError, match="No models are registered"):
        retemper.load("salt", root=tmp_path)
    assert not (tmp_path / "mlflow.db").exists()


def test_the_loader_has_a_lasting_name(tiny_model: Path, tmp_path: Path) -> None:
    """``MLmodel`` of every version, also of those of earlier releases, names ``retemper.mlflow_model``."""
    from retemper import mlflow_model

    path = as_trained(tiny_model, tmp_path / "model.safetensors")
    served = mlflow_model._load_pyfunc(str(path), {"head": "Default", "device": "cpu", "dtype": "float64"})
    assert isinstance(served, mlflow_model.Served)
