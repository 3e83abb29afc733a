"""A finished run."""

from __future__ import annotations

from pathlib import Path

import pytest
from compared import write_comparison

from retemper.config.settings import Settings


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> tuple[Path, Settings]:
    """Folder and settings of four strategies, two seeds each."""
    return tmp_path, write_comparison(tmp_path, tiny_model)
