"""A project with a store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from run_files import write_project

from retemper.tracking import embedded_store
from retemper.tracking.store import connect, default_store, experiment_id


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a store: a run with a file, and version 1 of ``salt`` with its files."""
    root = tmp_path_factory.mktemp("sound") / "project"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        (root.parent / "any.model").write_bytes(b"weights")
        write_project(root, root.parent / "any.model")
        client: Any = connect(root)
        experiment = experiment_id(client, root, "test")
        run = client.create_run(experiment)
        (root / "note.txt").write_text("of the original")
        client.log_artifact(run.info.run_id, str(root / "note.txt"))
        logged = client.create_logged_model(experiment, "m", run.info.run_id)
        client.log_model_artifacts(logged.model_id, str(root / "foundations"))
        client.finalize_logged_model(logged.model_id, "READY")
        client.create_registered_model("salt")
        with default_store(root):
            client.create_model_version("salt", f"models:/{logged.model_id}", run.info.run_id, model_id=logged.model_id)
    return root


@pytest.fixture
def project(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, at home."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "project"
    shutil.copytree(sound, root)
    embedded_store.ready(root)
    monkeypatch.chdir(root)
    return root
