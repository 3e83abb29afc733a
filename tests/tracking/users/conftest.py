"""A trained project."""

from __future__ import annotations

from pathlib import Path

import pytest
from trained_projects import write_trained

from retemper.config.settings import Settings


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Settings]:
    """A trained and evaluated model, in no store yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "project"
    settings = write_trained(root, tiny_model)
    monkeypatch.chdir(root)
    return root, settings
